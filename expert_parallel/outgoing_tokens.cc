#include "expert_parallel/outgoing_tokens.h"

#include <glog/logging.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/permute_tokens.h"
#include "kernels/row_codes.h"

namespace skipper {

namespace {

const ExpertHome& home_of(int32_t expert, std::span<const ExpertHome> homes) {
  CHECK(expert >= 0 && static_cast<size_t>(expert) < homes.size()) << "expert " << expert << " of " << homes.size();
  return homes[static_cast<size_t>(expert)];
}

// Calls visit(token, rank, starts_row) for every pair, tokens ascending; `starts_row` where a row of the token is sent for it and
// for what follows of its rank: for the token's first pair there, or for each.
template <typename Visit>
void for_each_pair(const Tensor& expert_ids, std::span<const ExpertHome> homes, DispatchBuffers& buffers, const Visit& visit) {
  std::vector<int32_t>& last_token = buffers.last_token;
  const bool is_row_per_pair = buffers.sends_row_per_pair();
  std::fill(last_token.begin(), last_token.end(), -1);
  const auto num_tokens = static_cast<int32_t>(expert_ids.dim(0));
  const int64_t top_k = expert_ids.dim(1);
  const int32_t* ids = expert_ids.data<int32_t>();
  for (int32_t token = 0; token < num_tokens; ++token, ids += top_k) {
    for (int64_t j = 0; j < top_k; ++j) {
      if (ids[j] == kNoExpert) continue;
      const auto rank = static_cast<size_t>(home_of(ids[j], homes).rank);
      const bool starts_row = is_row_per_pair || last_token[rank] != token;
      last_token[rank] = token;
      visit(token, rank, starts_row);
    }
  }
}

// Rows without skipping minus rows sent.
void count_saved_rows(const OutgoingTokens& tokens, DispatchBuffers& buffers) {
  const auto count_rows = [&](const Tensor& expert_ids, int32_t sign) {
    for_each_pair(expert_ids, tokens.homes, buffers, [&](int32_t token, size_t rank, bool starts_row) {
      if (starts_row && !buffers.is_own(rank)) tokens.policies.add_usage(token, UsageColumn::kRowsSaved, sign);
    });
  };
  count_rows(tokens.routed_ids, 1);
  count_rows(tokens.routing.expert_ids, -1);
}

// A shadow may keep rows here that would all have left: of those nothing is saved here.
void spare_rows_on_shadows(DispatchCounts& own) {
  for (size_t c = 0; c < kNumTokenClasses; ++c) own.unskipped_tokens[c] = std::max(own.unskipped_tokens[c], own.tokens[c]);
}

void count_outgoing(const OutgoingTokens& tokens, DispatchBuffers& buffers) {
  std::vector<DispatchCounts>& counts = buffers.sent_counts;
  const uint8_t* classes = tokens.policies.token_class.data<uint8_t>();
  for_each_pair(tokens.routing.expert_ids, tokens.homes, buffers, [&](int32_t token, size_t rank, bool starts_row) {
    counts[rank].tokens[classes[token]] += starts_row ? 1 : 0;
    ++counts[rank].pairs;
    if (starts_row && !buffers.is_own(rank)) tokens.policies.add_usage(token, UsageColumn::kRowsSent, 1);
  });
  if (tokens.routed_ids.bytes() == tokens.routing.expert_ids.bytes()) {  // nothing was skipped
    for (DispatchCounts& count : counts) count.unskipped_tokens = count.tokens;
    return;
  }
  count_saved_rows(tokens, buffers);
  for_each_pair(tokens.routed_ids, tokens.homes, buffers, [&](int32_t token, size_t rank, bool starts_row) {
    counts[rank].unskipped_tokens[classes[token]] += starts_row ? 1 : 0;
  });
  spare_rows_on_shadows(counts[static_cast<size_t>(buffers.own_rank)]);
}

// Rank by rank, the own rank last: the other ranks' rows lie together, as their sums come back.
void place_sent_rows(DispatchBuffers& buffers) {
  int64_t first_row = 0;
  for (size_t rank = 0; rank < buffers.sent_counts.size(); ++rank) {
    buffers.first_sent_row[rank] = first_row;
    if (!buffers.is_own(rank)) first_row += buffers.sent_counts[rank].num_tokens();
  }
  buffers.first_sent_row[static_cast<size_t>(buffers.own_rank)] = first_row;
}

// Lists the tokens of each rank and counts the rows of each token.
void list_tokens(const OutgoingTokens& tokens, DispatchBuffers& buffers) {
  place_sent_rows(buffers);
  int32_t* sent_tokens = buffers.sent_tokens.data<int32_t>();
  int32_t* num_returned = buffers.returned_offsets.data<int32_t>();
  std::fill_n(num_returned, tokens.hidden.dim(0) + 1, 0);
  std::vector<int64_t>& next_row = buffers.first_sent_row;
  for_each_pair(tokens.routing.expert_ids, tokens.homes, buffers, [&](int32_t token, size_t rank, bool starts_row) {
    if (!starts_row) return;
    sent_tokens[next_row[rank]++] = token;
    ++num_returned[token];
  });
  place_sent_rows(buffers);
}

// From the last rank down, each row taking its token's last free place: ends become beginnings on the way.
void list_returned_rows(int64_t num_tokens, DispatchBuffers& buffers) {
  int32_t* offsets = buffers.returned_offsets.data<int32_t>();
  std::partial_sum(offsets, offsets + num_tokens + 1, offsets);
  const int32_t* sent_tokens = buffers.sent_tokens.data<int32_t>();
  int32_t* returned_index = buffers.returned_index.data<int32_t>();
  for (size_t rank = buffers.sent_counts.size(); rank-- > 0;) {
    const int64_t first_row = buffers.first_sent_row[rank];
    const int64_t end = first_row + buffers.sent_counts[rank].num_tokens();
    for (int64_t row = first_row; row < end; ++row) returned_index[--offsets[sent_tokens[row]]] = static_cast<int32_t>(row);
  }
}

// The place of each pair's row, in the order of the router.
void list_returned_pairs(const OutgoingTokens& tokens, DispatchBuffers& buffers) {
  int32_t* offsets = buffers.returned_offsets.data<int32_t>();
  std::exclusive_scan(offsets, offsets + tokens.hidden.dim(0) + 1, offsets, 0);
  int32_t* next_index = buffers.returned_index.data<int32_t>();
  for_each_pair(tokens.routing.expert_ids, tokens.homes, buffers, [&](int32_t, size_t rank, bool) {
    *next_index++ = static_cast<int32_t>(buffers.first_sent_row[rank]++);
  });
  place_sent_rows(buffers);
}

template <typename T>
void append(std::byte*& cursor, T value) {
  std::memcpy(cursor, &value, sizeof(T));  // messages are packed without padding: cursors may be unaligned
  cursor += sizeof(T);
}

Tensor tokens_sent_to(size_t rank, const DispatchBuffers& buffers) {
  const int64_t first_row = buffers.first_sent_row[rank];
  return buffers.sent_tokens.slice(first_row, first_row + buffers.sent_counts[rank].num_tokens());
}

// Writes slots and weights of the token's pairs at `rank`; returns how many there are.
int32_t write_pairs_of(int32_t token, size_t rank, const OutgoingTokens& tokens, PayloadParts& parts) {
  const int64_t top_k = tokens.routing.expert_ids.dim(1);
  const int32_t* ids = tokens.routing.expert_ids.data<int32_t>() + token * top_k;
  const float* weights = tokens.routing.expert_weights.data<float>() + token * top_k;
  int32_t num_pairs = 0;
  for (int64_t j = 0; j < top_k; ++j) {
    if (ids[j] == kNoExpert) continue;
    const ExpertHome& home = home_of(ids[j], tokens.homes);
    if (static_cast<size_t>(home.rank) != rank) continue;
    append(parts.slots, home.slot);
    append(parts.weights, weights[j]);
    ++num_pairs;
  }
  return num_pairs;
}

// The lists of the pairs of `rank` of the tokens that go there.
void write_pairs(const OutgoingTokens& tokens, size_t rank, const DispatchBuffers& buffers, PayloadParts parts) {
  const Tensor sent_tokens = tokens_sent_to(rank, buffers);
  const std::span<const int32_t> rows = sent_tokens.span<int32_t>();
  for (size_t row = 0; row < rows.size();) {
    const int32_t num_pairs = write_pairs_of(rows[row], rank, tokens, parts);
    const int32_t num_rows = buffers.sends_row_per_pair() ? num_pairs : 1;
    for (int32_t i = 0; i < num_rows; ++i) append(parts.pair_counts, num_pairs / num_rows);
    row += static_cast<size_t>(num_rows);
  }
}

// Codes are made once for each token, however many ranks it goes to. Floats are rounded while they are gathered.
void encode_tokens(const OutgoingTokens& tokens, DispatchBuffers& buffers, Stream& stream) {
  const PayloadFormat format = buffers.config.payload_format;
  if (!is_coded(format)) return;
  Tensor coded = buffers.coded_tokens.first(tokens.hidden.dim(0));
  encode_rows(tokens.hidden, row_code_of(format), coded, stream);
}

// Rows as they travel, into a message.
void write_rows(const Tensor& hidden, const Tensor& sent_tokens, std::byte* message, DispatchBuffers& buffers, Stream& stream) {
  if (!buffers.config.rows_travel()) return;
  const PayloadFormat format = buffers.config.payload_format;
  const int64_t num_tokens = sent_tokens.dim(0);
  if (is_coded(format)) {
    Tensor rows = Tensor::borrow(message, {num_tokens, buffers.payload_row_bytes()}, DType::kU8);
    gather_rows(buffers.coded_tokens, sent_tokens, rows, stream);
  } else {
    Tensor rows = Tensor::borrow(message, {num_tokens, buffers.shape.hidden_size}, received_dtype(format));
    gather_rows(hidden, sent_tokens, rows, stream);
  }
}

// Rows as if they had travelled, to where received rows lie.
void place_rows(const Tensor& hidden, const Tensor& sent_tokens, Tensor& received, DispatchBuffers& buffers, Stream& stream) {
  const PayloadFormat format = buffers.config.payload_format;
  if (is_coded(format)) {
    decode_listed_rows(buffers.coded_tokens, sent_tokens, row_code_of(format), received, stream);
  } else {
    gather_rows(hidden, sent_tokens, received, stream);
  }
}

}  // namespace

void plan_outgoing(const OutgoingTokens& tokens, DispatchBuffers& buffers) {
  std::fill(buffers.sent_counts.begin(), buffers.sent_counts.end(), DispatchCounts{});
  count_outgoing(tokens, buffers);
  list_tokens(tokens, buffers);
  if (buffers.sends_row_per_pair()) {
    list_returned_pairs(tokens, buffers);
  } else {
    list_returned_rows(tokens.hidden.dim(0), buffers);
  }
  for (size_t rank = 0; rank < buffers.send_bytes.size(); ++rank) {
    const PayloadLayout layout = layout_of(buffers.sent_counts[rank], buffers.payload_row_bytes());
    buffers.send_bytes[rank] = buffers.is_own(rank) ? 0 : layout.num_bytes();
  }
}

void pack_outgoing(const OutgoingTokens& tokens, DispatchBuffers& buffers, Stream& stream) {
  encode_tokens(tokens, buffers, stream);
  std::byte* message = buffers.send_message.bytes();
  for (size_t rank = 0; rank < buffers.sent_counts.size(); ++rank) {
    if (buffers.is_own(rank) || buffers.sent_counts[rank].num_tokens() == 0) continue;
    const PayloadLayout layout = layout_of(buffers.sent_counts[rank], buffers.payload_row_bytes());
    const Tensor sent_tokens = tokens_sent_to(rank, buffers);
    write_rows(tokens.hidden, sent_tokens, message, buffers, stream);
    write_pairs(tokens, rank, buffers, parts_at(message, layout));
    message += layout.num_bytes();
  }
}

void place_own_tokens(const OutgoingTokens& tokens, DispatchBuffers& buffers, Stream& stream) {
  const auto own = static_cast<size_t>(buffers.own_rank);
  const Tensor sent_tokens = tokens_sent_to(own, buffers);
  if (sent_tokens.dim(0) == 0) return;
  const DispatchBuffers::Position position = buffers.received_from(own);
  Tensor received = buffers.received_rows.slice(position.row, position.row + sent_tokens.dim(0));
  place_rows(tokens.hidden, sent_tokens, received, buffers, stream);
  write_pairs(tokens, own, buffers, buffers.received_parts(position));
}

}  // namespace skipper

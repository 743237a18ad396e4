#include "expert_parallel/outgoing_tokens.h"

#include <glog/logging.h>

#include <algorithm>
#include <cstring>

namespace skipper {

namespace {

const ExpertHome& home_of(int32_t expert, std::span<const ExpertHome> homes) {
  CHECK(expert >= 0 && static_cast<size_t>(expert) < homes.size()) << "expert " << expert << " of " << homes.size();
  return homes[static_cast<size_t>(expert)];
}

// Calls visit(token, rank) once for every rank that owns one of the token's experts, tokens ascending.
template <typename Visit>
void for_each_destination(const Tensor& expert_ids, std::span<const ExpertHome> homes, std::vector<int32_t>& last_token,
                          const Visit& visit) {
  std::fill(last_token.begin(), last_token.end(), -1);
  const int64_t top_k = expert_ids.dim(1);
  for (int32_t token = 0; token < expert_ids.dim(0); ++token) {
    const int32_t* ids = expert_ids.row<int32_t>(token);
    for (int64_t j = 0; j < top_k; ++j) {
      if (ids[j] == kNoExpert) continue;
      const auto rank = static_cast<size_t>(home_of(ids[j], homes).rank);
      if (last_token[rank] == token) continue;
      last_token[rank] = token;
      visit(token, rank);
    }
  }
}

void count_tokens(const OutgoingTokens& tokens, DispatchBuffers& buffers) {
  std::vector<DispatchCounts>& counts = buffers.sent_counts;
  const uint8_t* classes = tokens.token_class.data<uint8_t>();
  for_each_destination(tokens.routing.expert_ids, tokens.homes, buffers.last_token,
                       [&](int32_t token, size_t rank) { ++counts[rank].tokens[classes[token]]; });
  if (tokens.routed_ids.bytes() == tokens.routing.expert_ids.bytes()) {  // nothing was skipped
    for (DispatchCounts& count : counts) count.unskipped_tokens = count.tokens;
    return;
  }
  for_each_destination(tokens.routed_ids, tokens.homes, buffers.last_token,
                       [&](int32_t token, size_t rank) { ++counts[rank].unskipped_tokens[classes[token]]; });
}

void count_pairs(const OutgoingTokens& tokens, DispatchBuffers& buffers) {
  for (const int32_t expert : tokens.routing.expert_ids.span<int32_t>()) {
    if (expert == kNoExpert) continue;
    ++buffers.sent_counts[static_cast<size_t>(home_of(expert, tokens.homes).rank)].pairs;
  }
}

void list_tokens(const OutgoingTokens& tokens, DispatchBuffers& buffers) {
  int64_t first_row = 0;
  for (size_t rank = 0; rank < buffers.next_row.size(); ++rank) {
    buffers.next_row[rank] = first_row;
    first_row += buffers.sent_counts[rank].num_tokens();
  }
  int32_t* sent_tokens = buffers.sent_tokens.data<int32_t>();
  for_each_destination(tokens.routing.expert_ids, tokens.homes, buffers.last_token,
                       [&](int32_t token, size_t rank) { sent_tokens[buffers.next_row[rank]++] = token; });
}

template <typename T>
void append(std::byte*& cursor, T value) {
  std::memcpy(cursor, &value, sizeof(T));  // messages are packed without padding: cursors may be unaligned
  cursor += sizeof(T);
}

void append_rows(std::span<const int32_t> sent_tokens, const Tensor& rows, std::byte* cursor) {
  const size_t row_bytes = static_cast<size_t>(rows.row_elements()) * size_of(rows.dtype());
  for (const int32_t token : sent_tokens) {
    std::memcpy(cursor, rows.bytes() + static_cast<size_t>(token) * row_bytes, row_bytes);
    cursor += row_bytes;
  }
}

// One destination and its share of sent_tokens.
struct OutgoingMessage {
  int32_t rank = 0;
  std::span<const int32_t> sent_tokens;
  PayloadLayout layout;
};

void pack_message(const OutgoingTokens& tokens, const OutgoingMessage& message, std::byte* bytes) {
  append_rows(message.sent_tokens, tokens.rows, bytes);
  std::byte* pair_counts = bytes + message.layout.pair_counts_offset();
  std::byte* slots = bytes + message.layout.slots_offset();
  std::byte* weights = bytes + message.layout.weights_offset();
  const int64_t top_k = tokens.routing.expert_ids.dim(1);
  for (const int32_t token : message.sent_tokens) {
    const int32_t* ids = tokens.routing.expert_ids.row<int32_t>(token);
    const float* token_weights = tokens.routing.expert_weights.row<float>(token);
    int32_t num_pairs = 0;
    for (int64_t j = 0; j < top_k; ++j) {
      if (ids[j] == kNoExpert) continue;
      const ExpertHome& home = home_of(ids[j], tokens.homes);
      if (home.rank != message.rank) continue;
      append(slots, home.slot);
      append(weights, token_weights[j]);
      ++num_pairs;
    }
    append(pair_counts, num_pairs);
  }
}

}  // namespace

void plan_outgoing(const OutgoingTokens& tokens, DispatchBuffers& buffers) {
  std::fill(buffers.sent_counts.begin(), buffers.sent_counts.end(), DispatchCounts{});
  count_tokens(tokens, buffers);
  count_pairs(tokens, buffers);
  list_tokens(tokens, buffers);
  for (size_t rank = 0; rank < buffers.send_bytes.size(); ++rank) {
    buffers.send_bytes[rank] = layout_of(buffers.sent_counts[rank], buffers.payload_row_bytes()).num_bytes();
  }
}

void pack_outgoing(const OutgoingTokens& tokens, DispatchBuffers& buffers) {
  std::byte* bytes = buffers.send_message.bytes();
  std::span<const int32_t> remaining = buffers.sent_tokens.span<int32_t>();
  for (size_t rank = 0; rank < buffers.sent_counts.size(); ++rank) {
    const PayloadLayout layout = layout_of(buffers.sent_counts[rank], buffers.payload_row_bytes());
    const auto num_tokens = static_cast<size_t>(layout.num_tokens);
    pack_message(tokens, {static_cast<int32_t>(rank), remaining.first(num_tokens), layout}, bytes);
    bytes += layout.num_bytes();
    remaining = remaining.subspan(num_tokens);
  }
}

}  // namespace skipper

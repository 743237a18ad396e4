#include "expert_parallel/incoming_tokens.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string>

#include "base/error.h"
#include "kernels/row_codes.h"

namespace skipper {

namespace {

// The tokens of one source: `from` its message to their place among those of all sources. The own tokens are in place.
struct IncomingMessage {
  int source = 0;
  PayloadLayout layout;
  PayloadParts from;
  PayloadParts to;
  DispatchBuffers::Position position;
};

[[noreturn]] void refuse(const IncomingMessage& message, const std::string& what) {
  throw CommError("dispatch payload of rank " + std::to_string(message.source) + ": " + what +
                  "; start all ranks with the same build, model and configuration");
}

void unpack_bytes(const std::byte* from, int64_t num_bytes, std::byte* to, ThreadPool& workers) {
  constexpr int64_t kPieceBytes = 256 * 1024;
  if (from == to) return;
  workers.parallel_ranges(num_bytes, kPieceBytes, [=](int64_t begin, int64_t end) {
    std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
  });
}

void unpack_rows(const IncomingMessage& message, DispatchBuffers& buffers, Stream& stream) {
  const PayloadFormat format = buffers.config.payload_format;
  const PayloadLayout& layout = message.layout;
  if (message.from.rows == message.to.rows || layout.num_tokens == 0) return;
  Tensor rows = buffers.received_rows.slice(message.position.row, message.position.row + layout.num_tokens);
  if (!buffers.config.rows_travel()) {
    std::memset(rows.bytes(), 0, rows.num_bytes());
    return;
  }
  if (!is_coded(format)) {
    return unpack_bytes(message.from.rows, layout.num_tokens * layout.row_bytes, message.to.rows, stream.workers());
  }
  const Tensor coded = Tensor::borrow(message.from.rows, {layout.num_tokens, layout.row_bytes}, DType::kU8);
  decode_rows(coded, row_code_of(format), rows, stream);
}

// Turns the message's pair counts into offsets that go on from the previous message's; in place for the own tokens.
void unpack_pair_counts(const IncomingMessage& message, DispatchBuffers& buffers) {
  int32_t* offsets = buffers.pair_offsets.data<int32_t>() + message.position.row;
  for (int64_t i = 0; i < message.layout.num_tokens; ++i) {
    int32_t count = 0;
    std::memcpy(&count, message.from.pair_counts + i * 4, sizeof(count));
    if (count < 1 || count > buffers.shape.top_k) {
      refuse(message, "a token with " + std::to_string(count) + " experts");
    }
    offsets[i + 1] = offsets[i] + count;
  }
  if (offsets[message.layout.num_tokens] != message.position.pair + message.layout.num_pairs) {
    refuse(message, "experts per token do not add up to those announced");
  }
}

void check_slots(const IncomingMessage& message, int num_local_experts, const DispatchBuffers& buffers) {
  const int32_t* slots = buffers.pair_slots.data<int32_t>() + message.position.pair;
  for (int64_t p = 0; p < message.layout.num_pairs; ++p) {
    if (slots[p] >= 0 && slots[p] < num_local_experts) continue;
    refuse(message, "expert slot " + std::to_string(slots[p]) + " of " + std::to_string(num_local_experts));
  }
}

void unpack_message(const IncomingMessage& message, int num_local_experts, DispatchBuffers& buffers, Stream& stream) {
  const PayloadLayout& layout = message.layout;
  unpack_rows(message, buffers, stream);
  unpack_pair_counts(message, buffers);
  unpack_bytes(message.from.slots, layout.num_pairs * 4, message.to.slots, stream.workers());
  unpack_bytes(message.from.weights, layout.num_pairs * 4, message.to.weights, stream.workers());
  check_slots(message, num_local_experts, buffers);
}

// row_offsets[e] = the end of expert e's rows, for all e; the last entry = all rows.
void sum_rows_per_expert(std::span<const int32_t> slots, std::span<int32_t> row_offsets) {
  std::fill(row_offsets.begin(), row_offsets.end(), 0);
  for (const int32_t slot : slots) ++row_offsets[static_cast<size_t>(slot)];
  for (size_t e = 1; e < row_offsets.size(); ++e) row_offsets[e] += row_offsets[e - 1];
}

}  // namespace

void unpack_incoming(const IncomingTokens& tokens, DispatchBuffers& buffers, Stream& stream) {
  IncomingMessage message;
  std::byte* bytes = buffers.receive_message.bytes();
  buffers.pair_offsets.data<int32_t>()[0] = 0;
  for (size_t source = 0; source < buffers.received_counts.size(); ++source) {
    message.source = static_cast<int>(source);
    message.layout = layout_of(buffers.received_counts[source], buffers.payload_row_bytes());
    message.to = buffers.received_parts(message.position);
    message.from = buffers.is_own(source) ? message.to : parts_at(bytes, message.layout);
    unpack_message(message, tokens.num_local_experts, buffers, stream);
    if (!buffers.is_own(source)) bytes += message.layout.num_bytes();
    message.position.row += message.layout.num_tokens;
    message.position.pair += message.layout.num_pairs;
  }
}

void sort_by_expert(const IncomingTokens& tokens, DispatchBuffers& buffers) {
  const auto slots = buffers.pair_slots.span<int32_t>().first(static_cast<size_t>(tokens.num_pairs));
  const auto row_offsets = buffers.row_offsets.span<int32_t>().first(static_cast<size_t>(tokens.num_local_experts) + 1);
  sum_rows_per_expert(slots, row_offsets);
  const int32_t* pair_offsets = buffers.pair_offsets.data<int32_t>();
  int32_t* row_index = buffers.row_index.data<int32_t>();
  int32_t* row_of_pair = buffers.row_of_pair.data<int32_t>();
  // From the last pair down, each taking its expert's highest free row: ends become beginnings on the way.
  for (int64_t token = tokens.num_tokens - 1; token >= 0; --token) {
    for (int32_t pair = pair_offsets[token + 1] - 1; pair >= pair_offsets[token]; --pair) {
      const int32_t row = --row_offsets[static_cast<size_t>(slots[static_cast<size_t>(pair)])];
      row_index[row] = static_cast<int32_t>(token);
      row_of_pair[pair] = row;
    }
  }
}

}  // namespace skipper

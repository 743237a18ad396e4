#include "expert_parallel/incoming_tokens.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string>

#include "base/error.h"

namespace skipper {

namespace {

// Where the contents of one message go: its rows and pairs start here in the tensors of all sources.
struct IncomingMessage {
  int source = 0;
  PayloadLayout layout;
  const std::byte* bytes = nullptr;
  int64_t first_row = 0;
  int64_t first_pair = 0;
};

[[noreturn]] void refuse(const IncomingMessage& message, const std::string& what) {
  throw CommError("dispatch payload of rank " + std::to_string(message.source) + ": " + what +
                  "; start all ranks with the same build, model and configuration");
}

void unpack_rows(const IncomingMessage& message, DispatchBuffers& buffers) {
  std::memcpy(buffers.received_rows.bytes() + message.first_row * message.layout.row_bytes, message.bytes,
              static_cast<size_t>(message.layout.num_tokens * message.layout.row_bytes));
}

// Turns the message's pair counts into offsets that go on from the previous message's.
void unpack_pair_counts(const IncomingMessage& message, DispatchBuffers& buffers) {
  int32_t* offsets = buffers.pair_offsets.data<int32_t>() + message.first_row;
  const std::byte* counts = message.bytes + message.layout.pair_counts_offset();
  const int64_t end = message.first_pair + message.layout.num_pairs;
  for (int64_t i = 0; i < message.layout.num_tokens; ++i) {
    int32_t count = 0;
    std::memcpy(&count, counts + i * 4, sizeof(count));
    if (count < 1 || count > buffers.shape.top_k) {
      refuse(message, "a token with " + std::to_string(count) + " experts");
    }
    offsets[i + 1] = offsets[i] + count;
  }
  if (offsets[message.layout.num_tokens] != end) refuse(message, "experts per token do not add up to those announced");
}

void unpack_pairs(const IncomingMessage& message, int num_local_experts, DispatchBuffers& buffers) {
  const auto num_pairs = static_cast<size_t>(message.layout.num_pairs);
  int32_t* slots = buffers.pair_slots.data<int32_t>() + message.first_pair;
  float* weights = buffers.pair_weights.data<float>() + message.first_pair;
  std::memcpy(slots, message.bytes + message.layout.slots_offset(), num_pairs * sizeof(int32_t));
  std::memcpy(weights, message.bytes + message.layout.weights_offset(), num_pairs * sizeof(float));
  for (size_t p = 0; p < num_pairs; ++p) {
    if (slots[p] >= 0 && slots[p] < num_local_experts) continue;
    refuse(message, "expert slot " + std::to_string(slots[p]) + " of " + std::to_string(num_local_experts));
  }
}

// row_offsets[e] = the end of expert e's rows, for all e; the last entry = all rows.
void sum_rows_per_expert(std::span<const int32_t> slots, std::span<int32_t> row_offsets) {
  std::fill(row_offsets.begin(), row_offsets.end(), 0);
  for (const int32_t slot : slots) ++row_offsets[static_cast<size_t>(slot)];
  for (size_t e = 1; e < row_offsets.size(); ++e) row_offsets[e] += row_offsets[e - 1];
}

}  // namespace

void unpack_incoming(const IncomingTokens& tokens, DispatchBuffers& buffers) {
  IncomingMessage message;
  message.bytes = buffers.receive_message.bytes();
  buffers.pair_offsets.data<int32_t>()[0] = 0;
  for (const DispatchCounts& counts : buffers.received_counts) {
    message.layout = layout_of(counts, buffers.payload_row_bytes());
    unpack_rows(message, buffers);
    unpack_pair_counts(message, buffers);
    unpack_pairs(message, tokens.num_local_experts, buffers);
    message.bytes += message.layout.num_bytes();
    message.first_row += message.layout.num_tokens;
    message.first_pair += message.layout.num_pairs;
    ++message.source;
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

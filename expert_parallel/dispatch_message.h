// Byte layout of the two messages that a dispatch sends from one rank to another, and the checks on what arrives.
//
// All numbers are in host byte order. A combine message has no layout of its own: num_tokens rows of partial sums in the
// combine format, in the order in which the tokens came.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "cluster/token_class.h"

namespace skipper {

// First message, of fixed size, to every rank: what the second one will hold. 28 bytes.
struct DispatchCounts {
  std::array<int32_t, kNumTokenClasses> tokens{};            // hidden rows to this rank, by class
  std::array<int32_t, kNumTokenClasses> unskipped_tokens{};  // what they would be without skipping
  int32_t pairs = 0;                                         // (token, local expert) pairs of these tokens

  int64_t num_tokens() const { return int64_t{tokens[0]} + tokens[1] + tokens[2]; }
};
static_assert(sizeof(DispatchCounts) == 28);

// Second message, absent when there are no tokens. n tokens with P pairs, without padding:
//   bytes                what
//   n · row_bytes        hidden rows in the payload format (payload_format.h), ascending token of the source
//   n · 4                i32: pairs of each token, 1 to top_k
//   P · 4                i32: slot of the local expert, pairs of the first token first, in the token's top-k order
//   P · 4                f32: weight of the pair
struct PayloadLayout {
  int64_t num_tokens = 0;
  int64_t num_pairs = 0;
  int64_t row_bytes = 0;

  int64_t pair_counts_offset() const { return num_tokens * row_bytes; }
  int64_t slots_offset() const { return pair_counts_offset() + num_tokens * 4; }
  int64_t weights_offset() const { return slots_offset() + num_pairs * 4; }
  int64_t num_bytes() const { return weights_offset() + num_pairs * 4; }
};

// Where the parts of a payload lie: in a message, or for a rank's own tokens in the buffers that messages are unpacked to.
struct PayloadParts {
  std::byte* rows = nullptr;
  std::byte* pair_counts = nullptr;
  std::byte* slots = nullptr;
  std::byte* weights = nullptr;
};

inline PayloadParts parts_at(std::byte* message, const PayloadLayout& layout) {
  return {.rows = message,
          .pair_counts = message + layout.pair_counts_offset(),
          .slots = message + layout.slots_offset(),
          .weights = message + layout.weights_offset()};
}

inline PayloadLayout layout_of(const DispatchCounts& counts, int64_t row_bytes) {
  return {.num_tokens = counts.num_tokens(), .num_pairs = counts.pairs, .row_bytes = row_bytes};
}

// What a rank may announce.
struct DispatchCapacity {
  int64_t max_rows = 0;  // of one rank
  int64_t top_k = 0;
};

// Throws CommError naming `source` when the counts do not fit the capacity or contradict each other.
void check_counts(const DispatchCounts& counts, const DispatchCapacity& capacity, int source);

}  // namespace skipper

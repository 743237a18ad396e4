// Tokens of a prompt that matter so much to the others that no rule touches them (MC-MoE, Huang et al. 2025).
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "cluster/operating_point.h"
#include "expert_parallel/token_policies.h"
#include "kernels/attention_received.h"
#include "tensor/tensor.h"

namespace skipper {

// Whether some token of a prompt runs under a level with protect_attention.
bool any_token_is_protected_by_attention(const LevelTable& levels, const TokenPolicies& policies);

// The rows of a layer before its experts.
struct ImportanceInput {
  const LevelTable& levels;
  const TokenPolicies& policies;
  const Tensor& sequence_index;  // [T] i32, sequence by sequence
  const Tensor& hidden;          // [T, H] f32, what the experts take
};

// Writes the attention that each of these rows gets: kernels/attention_received.h.
using ReceivedAttention = std::function<void(const RowRange& rows, std::span<float> received)>;

// marks[t] = 1 for tokens that keep all pairs in this layer, 0 for the others. Of the n text and vision tokens of a prompt whose
// level has protect_attention, those are the ⌈protect_attention · n⌉ with the largest |hidden|_1 · attention received, of equals
// the earlier. A step sees a prompt's tokens as far as it takes them: another chunk size, other marks. Other sequences of the
// step have no influence, and tokens of other levels and generated tokens are never marked.
void mark_important_tokens(const ImportanceInput& input, const ReceivedAttention& received_by, std::span<uint8_t> marks);

}  // namespace skipper

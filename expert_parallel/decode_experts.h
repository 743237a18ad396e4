// Keeps the number of distinct experts of a decode batch small: there, reading experts costs more than the pairs on them.
#pragma once

#include <cstdint>
#include <vector>

#include "expert_parallel/token_rules.h"

namespace skipper {

// Scratch, grows to the number of experts and stays.
struct DecodeExperts {
  std::vector<uint8_t> is_needed;    // [E] by tokens or pairs that the rule at hand may not touch
  std::vector<float> importance;     // [E] Σ p of the pairs that it may
  std::vector<int32_t> order;        // experts by importance
  std::vector<int32_t> place;        // [E] position among the experts of its rank, the needed ones first
  std::vector<int32_t> num_at_rank;  // [ranks]
};

// For the generated tokens of this rank's micro-batch, by the level of each:
// decode_base_k (OEA): a token keeps the pairs whose expert some token of the rule has among its first decode_base_k, or a token
// outside the rule uses at all.
// decode_rank_experts (XShare's budget for each rank): of the experts of one rank, those that tokens outside the rule use come
// first, then by Σ p over the tokens inside; a token keeps the pairs whose expert is among the first decode_rank_experts, or is
// used outside the rule.
// Outside are prompt and protected tokens, rare cases (protect_margin), levels without the rule, and first experts that
// protect_top1 spares. Pure but for the scratch; depends on the batch.
void apply_decode_rules(const SkipBatch& batch, DecodeExperts& scratch);

}  // namespace skipper

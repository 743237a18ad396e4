// The weights of a token's surviving pairs.
#pragma once

#include <cstdint>
#include <span>

#include "expert_parallel/token_rules.h"

namespace skipper {

// Scales the weights of a token that lost some of its pairs, but not all, so that those of `kept_ids` sum to what all of
// `routed` sum to. Any other token keeps its bits. `kept_weights` holds the routed weights.
void renormalize(const TokenPairs& routed, std::span<const int32_t> kept_ids, std::span<float> kept_weights);

}  // namespace skipper

// Which pairs of a token are not worth their computation: a function of the token's own weights.
#pragma once

#include <cstdint>
#include <span>

#include "expert_parallel/token_rules.h"

namespace skipper {

// Writes kNoExpert over the ids that PairRule skips (cluster/operating_point.h has the formulas); `kept_ids` holds the routed
// ids. Slots count from the largest weight. A fractional kept_k keeps one more pair for the tokens whose weights hash below the
// fraction, so a token is treated alike in every batch. exempt_local spares the pairs of the token's own rank, protect_top1
// the first. Of kTailMass the whole token is 1 by definition: a beta up to 1 never takes the first pair; kSimilar never does.
// Pure; with exempt_local off it depends on the token alone.
void apply_pair_rule(const PairShares& shares, const TokenRules& rules, const Destinations& destinations,
                     std::span<int32_t> kept_ids);

}  // namespace skipper

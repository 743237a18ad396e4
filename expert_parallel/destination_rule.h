// Which destinations of a token are not worth its trip.
#pragma once

#include <cstdint>
#include <span>

#include "expert_parallel/token_rules.h"

namespace skipper {

// For each rank d but the token's own, over the pairs that `kept_ids` still has there: S = alpha · Σ p² (or alpha · Σ p), and
// the whole group is skipped iff S < tau_dst[hop to d]. A token costs the same bytes to a rank whatever it asks for there, so
// for bytes the group is the unit. protect_top1 keeps the group of the first expert. Pure; depends on who owns the experts.
void apply_destination_rule(const PairShares& shares, const TokenRules& rules, const Destinations& destinations,
                            std::span<int32_t> kept_ids);

}  // namespace skipper

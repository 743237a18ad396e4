// Lets a token's pairs at another rank run on this rank's shadow copies where the trip is not worth its bytes.
#pragma once

#include <cstdint>
#include <span>

#include "expert_parallel/token_rules.h"

namespace skipper {

// Serve, approximate or skip. A row to a rank costs the same bytes for one pair as for all, so a token's pairs at a rank are
// judged together, by what is lost without the trip for the bytes of one row:
//
//   L = alpha · Σ p² · error        error: of the shadow's format (Destinations::error_of_shadow), 1 where this rank has none
//
//   L < tau_shadow[hop]             the trip is left out: pairs run on their shadows, those without one not at all
//   otherwise                       the row travels and all of its pairs run at the owner
//
// Without any shadow L is the score of the destination rule, which has run before and skips what is not worth a product either.
// Groups with the token's first expert stay when protect_top1 says so. `kept_ids` gets Destinations::shadow_of().
void apply_shadow_rule(const PairShares& shares, const TokenRules& rules, const Destinations& destinations,
                       std::span<int32_t> kept_ids);

}  // namespace skipper

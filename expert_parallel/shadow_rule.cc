#include "expert_parallel/shadow_rule.h"

#include "expert_parallel/destination_groups.h"

namespace skipper {

void apply_shadow_rule(const PairShares& shares, const TokenRules& rules, const Destinations& destinations,
                       std::span<int32_t> kept_ids) {
  if (!rules.may_use_shadows()) return;
  for_each_trip(destinations, kept_ids, [&](int rank, size_t first, Hop hop) {
    const float tau = rules.tau_shadow[static_cast<size_t>(hop)];
    if (tau == 0.0f) return;
    float loss = 0.0f;
    bool has_spared = false;
    for_each_pair_at(rank, first, destinations, kept_ids, [&](size_t slot) {
      loss += shares[slot] * shares[slot] * destinations.error_of_shadow(kept_ids[slot]);
      has_spared = has_spared || is_spared(shares, rules, slot);
    });
    if (has_spared || !(rules.alpha * loss < tau)) return;
    for_each_pair_at(rank, first, destinations, kept_ids,
                     [&](size_t slot) { kept_ids[slot] = destinations.shadow_of(kept_ids[slot]); });
  });
}

}  // namespace skipper

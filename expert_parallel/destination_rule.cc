#include "expert_parallel/destination_rule.h"

#include "expert_parallel/destination_groups.h"

namespace skipper {

namespace {

// The pairs of a token at one rank.
struct DestinationGroup {
  float sum = 0.0f;  // Σ p² or Σ p
  bool is_spared = false;
};

}  // namespace

void apply_destination_rule(const PairShares& shares, const TokenRules& rules, const Destinations& destinations,
                            std::span<int32_t> kept_ids) {
  const bool squares = rules.destination_score == DestinationScore::kSumOfSquares;
  for_each_trip(destinations, kept_ids, [&](int rank, size_t first, Hop hop) {
    const float tau = rules.tau_dst[static_cast<size_t>(hop)];
    if (tau == 0.0f) return;
    DestinationGroup group;
    for_each_pair_at(rank, first, destinations, kept_ids, [&](size_t slot) {
      group.sum += squares ? shares[slot] * shares[slot] : shares[slot];
      group.is_spared = group.is_spared || is_spared(shares, rules, slot);
    });
    if (group.is_spared || !(rules.alpha * group.sum < tau)) return;
    for_each_pair_at(rank, first, destinations, kept_ids, [&](size_t slot) { kept_ids[slot] = kNoExpert; });
  });
}

}  // namespace skipper

#include "expert_parallel/destination_rule.h"

namespace skipper {

namespace {

// The pairs of a token at one rank.
struct DestinationGroup {
  float sum = 0.0f;  // Σ p² or Σ p
  bool is_spared = false;
};

// Calls visit(slot) for the slots from `first` on whose experts are at `rank`.
template <typename Visit>
void for_each_pair_at(int rank, size_t first, const Destinations& destinations, std::span<int32_t> kept_ids,
                      const Visit& visit) {
  for (size_t slot = first; slot < kept_ids.size(); ++slot) {
    if (kept_ids[slot] != kNoExpert && destinations.rank_of(kept_ids[slot]) == rank) visit(slot);
  }
}

bool is_first_at(int rank, size_t slot, const Destinations& destinations, std::span<const int32_t> kept_ids) {
  for (size_t earlier = 0; earlier < slot; ++earlier) {
    if (kept_ids[earlier] != kNoExpert && destinations.rank_of(kept_ids[earlier]) == rank) return false;
  }
  return true;
}

}  // namespace

void apply_destination_rule(const PairShares& shares, const TokenRules& rules, const Destinations& destinations,
                            std::span<int32_t> kept_ids) {
  const bool squares = rules.destination_score == DestinationScore::kSumOfSquares;
  for (size_t first = 0; first < kept_ids.size(); ++first) {
    if (kept_ids[first] == kNoExpert) continue;
    const int rank = destinations.rank_of(kept_ids[first]);
    const float tau = rules.tau_dst[static_cast<size_t>(destinations.hop_to(rank))];
    if (rank == destinations.own_rank || tau == 0.0f || !is_first_at(rank, first, destinations, kept_ids)) continue;
    DestinationGroup group;
    for_each_pair_at(rank, first, destinations, kept_ids, [&](size_t slot) {
      group.sum += squares ? shares[slot] * shares[slot] : shares[slot];
      group.is_spared = group.is_spared || is_spared(shares, rules, slot);
    });
    if (group.is_spared || !(rules.alpha * group.sum < tau)) continue;
    for_each_pair_at(rank, first, destinations, kept_ids, [&](size_t slot) { kept_ids[slot] = kNoExpert; });
  }
}

}  // namespace skipper

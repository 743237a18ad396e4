// The pairs of a token at one rank, which share a trip: how rules that judge them together go through them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "expert_parallel/routing.h"
#include "expert_parallel/token_rules.h"

namespace skipper {

// Calls visit(slot) for the slots from `first` on whose experts are at `rank`.
template <typename Visit>
void for_each_pair_at(int rank, size_t first, const Destinations& destinations, std::span<const int32_t> kept_ids,
                      const Visit& visit) {
  for (size_t slot = first; slot < kept_ids.size(); ++slot) {
    if (kept_ids[slot] != kNoExpert && destinations.rank_of(kept_ids[slot]) == rank) visit(slot);
  }
}

inline bool is_first_at(int rank, size_t slot, const Destinations& destinations, std::span<const int32_t> kept_ids) {
  for (size_t earlier = 0; earlier < slot; ++earlier) {
    if (kept_ids[earlier] != kNoExpert && destinations.rank_of(kept_ids[earlier]) == rank) return false;
  }
  return true;
}

// Calls visit(rank, first, hop) for each other rank that the token goes to; `first` is its first slot there. The visit may write
// the ids of that rank.
template <typename Visit>
void for_each_trip(const Destinations& destinations, std::span<const int32_t> kept_ids, const Visit& visit) {
  for (size_t slot = 0; slot < kept_ids.size(); ++slot) {
    if (kept_ids[slot] == kNoExpert) continue;
    const int rank = destinations.rank_of(kept_ids[slot]);
    if (rank == destinations.own_rank || !is_first_at(rank, slot, destinations, kept_ids)) continue;
    visit(rank, slot, destinations.hop_to(rank));
  }
}

}  // namespace skipper

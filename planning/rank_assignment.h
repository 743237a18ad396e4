// Experts to ranks, once their formats and tiers are chosen: loads alike in every layer, bytes within every rank's room.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "planning/option_table.h"

namespace skipper {

struct RankedExpert {
  double seconds = 0.0;  // load, of one generated token
  MemoryTier tier = MemoryTier::kHost;
  size_t num_bytes = 0;
};

// experts[layer · num_experts + e]; rooms[rank]. Returns the rank of each expert. A rank may end with more than its room by
// part of an expert's bytes in each layer it holds: formats are chosen anew within each rank's budget afterwards.
std::vector<int32_t> assign_ranks(std::span<const RankedExpert> experts, int num_layers, std::span<const TierRoom> rooms);

}  // namespace skipper

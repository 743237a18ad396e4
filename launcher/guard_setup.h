// Whether a guard fits in the memory that plans give a rank.
#pragma once

#include <cstddef>
#include <string>

#include "experts/expert_store.h"
#include "guard/guard_config.h"

namespace skipper {

// Room that a plan leaves for the reference experts of one rank.
struct ReferenceRoom {
  std::string plan;  // as operators call it
  size_t bytes = 0;
};

// Throws ResourceExhausted naming what the reference of the experts `served` by `rank` takes and what the plan has left for it.
void require_room_for_reference(const GuardConfig& config, const ExpertStore& served, const ReferenceRoom& room, int rank);

}  // namespace skipper

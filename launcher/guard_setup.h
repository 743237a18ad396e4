// Whether a guard fits in the memory that a plan gives a rank.
#pragma once

#include <cstddef>

#include "guard/guard_config.h"
#include "guard/reference_loader.h"

namespace skipper {

// Throws ResourceExhausted naming what the reference experts of `rank` take and what its plan has left for them.
void require_room_for_reference(const GuardConfig& config, const WatchedModel& watched, size_t room, int rank);

}  // namespace skipper

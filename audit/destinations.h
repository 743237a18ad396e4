// The ranks that a token goes to.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "expert_parallel/expert_placement.h"

namespace skipper {

// Of a token's experts, kNoExpert where one was skipped; homes = those of the layer, or those that the token's rank sees, for
// experts among which shadows may be. Ascending, each rank once.
std::vector<int32_t> destinations_of(std::span<const int32_t> experts, std::span<const ExpertHome> homes);

}  // namespace skipper

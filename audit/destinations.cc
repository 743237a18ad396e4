#include "audit/destinations.h"

#include <algorithm>

#include "expert_parallel/routing.h"

namespace skipper {

std::vector<int32_t> destinations_of(std::span<const int32_t> experts, std::span<const ExpertHome> homes) {
  std::vector<int32_t> ranks;
  for (const int32_t expert : experts) {
    if (expert != kNoExpert) ranks.push_back(homes[static_cast<size_t>(expert)].rank);
  }
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
}

}  // namespace skipper

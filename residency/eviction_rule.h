// The names of the rules by which a full cache gives up an expert.
#pragma once

#include <cstdint>
#include <string_view>

namespace skipper {

enum class EvictionRule : uint8_t {
  kLeastRecent,    // longest unused
  kLeastFrequent,  // fewest uses since start; of equals the longest unused
  kLayerDistance,  // EdgeMoE: fewest uses per layer that runs before the expert's own; of equals the longest unused
};

inline constexpr int kNumEvictionRules = 3;

std::string_view name_of(EvictionRule rule);  // "lru", "lfu", "edge"

}  // namespace skipper

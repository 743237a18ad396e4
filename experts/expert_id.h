// The key of one expert: which MoE layer, which expert of it.
#pragma once

#include <compare>
#include <cstdint>

namespace skipper {

struct ExpertId {
  int32_t layer = 0;   // index among the MoE layers
  int32_t expert = 0;  // index among the layer's experts, as the router counts them

  friend auto operator<=>(const ExpertId&, const ExpertId&) = default;
};

}  // namespace skipper

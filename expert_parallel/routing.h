// Which experts each token goes to.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace skipper {

inline constexpr int32_t kNoExpert = -1;

// Skipping an expert is writing kNoExpert: dispatch, expert computation and combine need no knowledge of why. After skipping
// an id of num_experts + e is the shadow of expert e on the token's own rank (ExpertPlacement::homes_seen_from).
struct Routing {
  Tensor expert_ids;      // [T, top_k] i32, kNoExpert = no expert
  Tensor expert_weights;  // [T, top_k] f32; the weight beside kNoExpert is ignored
};

}  // namespace skipper

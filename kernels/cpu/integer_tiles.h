// Tiles of integer weights: exact integer dot products within a group, scaled and added in FP32 group by group.
#pragma once

#include "kernels/cpu/tile_policy.h"
#include "kernels/weight_format.h"

namespace skipper::cpu {

// The policy for integer weights of one kind and any group size. All instruction sets give the same bits:
// sum = fma(float(Σ (code − zero) · activation code), weight scale · activation scale, sum), groups in ascending order.
const TilePolicy& integer_tile_policy(WeightKind kind, Isa isa);

}  // namespace skipper::cpu

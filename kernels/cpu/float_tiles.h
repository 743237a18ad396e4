// Tiles of float weights: BF16 pairs by vdpbf16ps where the CPU has it, else widened to FP32 and multiplied by FMA.
#pragma once

#include "kernels/cpu/tile_policy.h"
#include "kernels/weight_format.h"

namespace skipper::cpu {

// The policy for f32 or bf16 weights that meet FP32 or BF16 activations.
const TilePolicy& float_tile_policy(WeightKind kind, ActivationFormat activations, Isa isa);

}  // namespace skipper::cpu

// Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face models.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// Rotates in place: x[i] ← x[i]·cos[i] − x[i + D/2]·sin[i] and x[i + D/2] ← x[i + D/2]·cos[i] + x[i]·sin[i], i < D/2.
// The angles come from the caller, so plain, interleaved multimodal (M-RoPE) and 2-D vision positions share one kernel.
// x [T, heads, D] f32 · angles [T, D / 2] f32, radians
void rope(Tensor& x, const Tensor& angles, Stream& stream);

namespace cpu {
void rope(Tensor& x, const Tensor& angles, ThreadPool& workers);
}

}  // namespace skipper

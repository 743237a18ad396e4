// The head norm and the rotation of queries or keys (Qwen3) in one pass.
#pragma once

#include "kernels/rms_norm.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// In place: each head is normalised as by rms_norm, then rotated as by rope; the bits of the two one after the other.
// x [T, heads, D] f32 · weights.weight [D] · angles [T, D / 2] f32, radians
void rms_norm_rope(Tensor& x, const RmsNormWeights& weights, const Tensor& angles, Stream& stream);

namespace cpu {
void rms_norm_rope(Tensor& x, const RmsNormWeights& weights, const Tensor& angles, ThreadPool& workers);
}

}  // namespace skipper

// Root-mean-square normalisation over the last axis (Zhang and Sennrich 2019, eq. 4).
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// y = x / sqrt(mean(x²) + epsilon) · weight, over the last `weight.dim(0)` elements; in place when y is x.
// x [..., H] f32 · weight [H] bf16 or f32 · y as x
void rms_norm(const Tensor& x, const Tensor& weight, float epsilon, Tensor& y, Stream& stream);

namespace cpu {
void rms_norm(const Tensor& x, const Tensor& weight, float epsilon, Tensor& y);
}

}  // namespace skipper

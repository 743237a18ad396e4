// Root-mean-square normalisation over the last axis (Zhang and Sennrich 2019, eq. 4).
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// y = x / sqrt(mean(x²) + epsilon) · weight, over the last `weight.dim(0)` elements; in place when y is x.
// x [..., H] f32 · weight [H] bf16 or f32 · y as x
void rms_norm(const Tensor& x, const Tensor& weight, float epsilon, Tensor& y, Stream& stream);

struct RmsNormWeights {
  const Tensor& weight;  // [H] bf16 or f32
  float epsilon = 1e-6f;
};

// The end of a sublayer with the beginning of the next: hidden += x, then normed = rms_norm(hidden). The bits of add() and
// rms_norm() one after the other, in one pass over the rows.
// x, hidden, normed [..., H] f32, three buffers
void add_rms_norm(const Tensor& x, const RmsNormWeights& weights, Tensor& hidden, Tensor& normed, Stream& stream);

namespace cpu {
void rms_norm(const Tensor& x, const Tensor& weight, float epsilon, Tensor& y, ThreadPool& workers);
void add_rms_norm(const Tensor& x, const RmsNormWeights& weights, Tensor& hidden, Tensor& normed, ThreadPool& workers);
}  // namespace cpu

}  // namespace skipper

// Dense matrix product with BF16 or FP32 weights and FP32 accumulation.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// y = x · wᵀ (+ bias). Sums over K in an order that depends on K alone: row m of y has the same bits for any M.
// x [M, K] f32 · w [N, K] bf16 or f32 · bias [N] bf16 or f32, or undefined for none · y [M, N] f32
struct LinearWeights {
  Tensor weight;  // [N, K]
  Tensor bias;    // [N] or undefined
};
void gemm(const Tensor& x, const LinearWeights& weights, Tensor& y, Stream& stream);

namespace cpu {
void gemm(const Tensor& x, const LinearWeights& weights, Tensor& y);
}

}  // namespace skipper

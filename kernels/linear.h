// A dense product with packed weights: y = x · wᵀ (+ bias).
#pragma once

#include "kernels/packed_matrix.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

struct PackedLinear {
  PackedMatrix weight;  // [N, K]
  Tensor bias;          // [N] bf16 or f32, or undefined
};

// x [M, K] f32, converted to weight.activations row by row · y [M, N] f32, FP32 accumulation.
// Sums over K run in one order that depends on K and the format alone: row m of y has the same bits for any M, any number
// of threads, and in gemv and tile alike.
void linear(const Tensor& x, const PackedLinear& weights, Tensor& y, Stream& stream);

namespace cpu {
void linear(const Tensor& x, const PackedLinear& weights, Tensor& y, ThreadPool& workers);
}

}  // namespace skipper

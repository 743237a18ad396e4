// Layer normalisation over the last axis (Ba et al. 2016).
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

struct LayerNormWeights {
  Tensor weight;  // [H] bf16 or f32
  Tensor bias;    // [H] bf16 or f32
  float epsilon = 1e-6f;
};

// y = (x − mean) / sqrt(variance + epsilon) · weight + bias; in place when y is x.
// x [..., H] f32 · y as x
void layer_norm(const Tensor& x, const LayerNormWeights& weights, Tensor& y, Stream& stream);

namespace cpu {
void layer_norm(const Tensor& x, const LayerNormWeights& weights, Tensor& y, ThreadPool& workers);
}

}  // namespace skipper

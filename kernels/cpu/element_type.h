// Calls one generic function with a tensor's typed elements: the single place where BF16 and FP32 part ways.
#pragma once

#include "tensor/tensor.h"

namespace skipper::cpu {

// function(const float*) or function(const bf16*); any other element type is our bug.
template <typename Function>
void with_floats(const Tensor& tensor, Function&& function) {
  if (tensor.dtype() == DType::kBF16) return function(tensor.data<bf16>());
  function(tensor.data<float>());
}

template <typename Function>
void with_mutable_floats(Tensor& tensor, Function&& function) {
  if (tensor.dtype() == DType::kBF16) return function(tensor.data<bf16>());
  function(tensor.data<float>());
}

}  // namespace skipper::cpu

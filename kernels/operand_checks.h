// Checks that the dispatchers of kernels/ share; a failure is a bug of the caller, so they end the process.
#pragma once

#include <initializer_list>
#include <string_view>

#include "tensor/tensor.h"

namespace skipper {

// Every tensor is defined and in host memory: these kernels have no CUDA version.
void check_on_host(std::string_view kernel, std::initializer_list<const Tensor*> tensors);

// bf16 or f32.
void check_floats(std::string_view kernel, const Tensor& tensor);

// f32 of exactly this shape.
void check_f32(std::string_view kernel, const Tensor& tensor, const Shape& shape);

// One-dimensional i32.
void check_index(std::string_view kernel, const Tensor& tensor);

}  // namespace skipper

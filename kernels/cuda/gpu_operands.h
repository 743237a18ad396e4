// Checks that the launchers of kernels/cuda share; a failure is a bug of the caller, so they end the process.
#pragma once

#include <glog/logging.h>

#include <string_view>

#include "tensor/tensor.h"

namespace skipper::cuda {

// On the GPU, of this type and exactly this shape. Without elements it may be anywhere: nothing is read.
inline void check_operand(std::string_view kernel, const Tensor& tensor, DType dtype, const Shape& shape) {
  CHECK(tensor.shape() == shape) << kernel << ": " << tensor.shape().to_string() << ", expected " << shape.to_string();
  CHECK(tensor.dtype() == dtype) << kernel << ": " << name_of(tensor.dtype()) << ", expected " << name_of(dtype);
  CHECK(tensor.num_elements() == 0 || tensor.on_gpu()) << kernel << ": an operand in host memory";
}

inline void check_rank(std::string_view kernel, const Tensor& tensor, int rank) {
  CHECK_EQ(tensor.shape().rank(), rank) << kernel << ": " << tensor.shape().to_string();
}

}  // namespace skipper::cuda

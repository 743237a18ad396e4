#include "kernels/operand_checks.h"

namespace skipper {

void check_on_host(std::string_view kernel, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* tensor : tensors) {
    CHECK(tensor->defined()) << kernel << ": an operand is undefined";
    CHECK(!tensor->on_gpu()) << kernel << ": no CUDA kernel for this operation; its operands must be in host memory";
  }
}

void check_floats(std::string_view kernel, const Tensor& tensor) {
  CHECK(tensor.dtype() == DType::kBF16 || tensor.dtype() == DType::kF32)
      << kernel << ": expected bf16 or f32, got " << name_of(tensor.dtype());
}

void check_f32(std::string_view kernel, const Tensor& tensor, const Shape& shape) {
  CHECK(tensor.dtype() == DType::kF32) << kernel << ": expected f32, got " << name_of(tensor.dtype());
  CHECK(tensor.shape() == shape) << kernel << ": expected shape " << shape.to_string() << ", got " << tensor.shape().to_string();
}

void check_index(std::string_view kernel, const Tensor& tensor) {
  CHECK(tensor.dtype() == DType::kI32) << kernel << ": expected i32, got " << name_of(tensor.dtype());
  CHECK_EQ(tensor.shape().rank(), 1) << kernel << ": got " << tensor.shape().to_string();
}

}  // namespace skipper

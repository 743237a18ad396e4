// Host memory that a GPU copies to and from while the host goes on.
#pragma once

#include <memory>

#include "tensor/tensor.h"

namespace skipper::cuda {

// A host tensor in page-locked memory; its handles must not outlive this object.
class PinnedTensor {
 public:
  PinnedTensor() = default;
  // Zeros. Throws DeviceError when the memory cannot be had.
  PinnedTensor(const Shape& shape, DType dtype);

  Tensor& tensor() { return tensor_; }
  const Tensor& tensor() const { return tensor_; }

 private:
  std::shared_ptr<std::byte> memory_;
  Tensor tensor_;
};

}  // namespace skipper::cuda

#include "tensor/cuda/pinned_tensor.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/error.h"

namespace skipper::cuda {

namespace {

std::shared_ptr<std::byte> allocate_pinned(size_t num_bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMallocHost(&memory, num_bytes);
  if (status != cudaSuccess) {
    throw DeviceError("allocating " + std::to_string(num_bytes) + " bytes of page-locked host memory failed: " +
                      cudaGetErrorString(status) + "; raise the limit on locked memory (ulimit -l) or lower the batch limits");
  }
  std::memset(memory, 0, num_bytes);
  return {static_cast<std::byte*>(memory), [](std::byte* p) { cudaFreeHost(p); }};
}

}  // namespace

PinnedTensor::PinnedTensor(const Shape& shape, DType dtype)
    : memory_(allocate_pinned(std::max<size_t>(static_cast<size_t>(shape.num_elements()) * size_of(dtype), 1))),
      tensor_(Tensor::borrow(memory_.get(), shape, dtype)) {}

}  // namespace skipper::cuda

#include "tensor/cuda/gpu_properties.h"

#include <cuda_runtime_api.h>

#include "tensor/cuda/cuda_check.h"

namespace skipper::cuda {

GpuProperties gpu_properties(int index) {
  cudaDeviceProp device{};
  CUDA_CHECK(cudaGetDeviceProperties(&device, index));
  GpuProperties properties{.name = device.name,
                           .major = device.major,
                           .minor = device.minor,
                           .num_multiprocessors = device.multiProcessorCount,
                           .total_bytes = device.totalGlobalMem};
  CUDA_CHECK(cudaSetDevice(index));
  size_t total_bytes = 0;
  CUDA_CHECK(cudaMemGetInfo(&properties.free_bytes, &total_bytes));
  return properties;
}

CudaVersions cuda_versions() {
  CudaVersions versions;
  // Each leaves its number alone when it fails.
  (void)cudaDriverGetVersion(&versions.driver);
  (void)cudaRuntimeGetVersion(&versions.runtime);
  return versions;
}

std::string gpu_problem() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess) return count > 0 ? "" : "no CUDA-capable device is detected";
  return cudaGetErrorString(status);
}

}  // namespace skipper::cuda

#include "tensor/cuda/device_runtime.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <string>

#include "base/error.h"
#include "tensor/cuda/cuda_check.h"

namespace skipper::cuda {

void check_status(cudaError_t status, const char* expression) {
  if (status != cudaSuccess) throw DeviceError(std::string(expression) + ": " + cudaGetErrorString(status));
}

int num_gpus() {
  int count = 0;
  // Without a driver the call fails and leaves `count` alone; that is "no GPU", not an error.
  if (cudaGetDeviceCount(&count) != cudaSuccess) return 0;
  return count;
}

// None of these calls needs a GPU or a driver.
std::string library_versions() {
  int runtime = 0;
  CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
  int nccl = 0;
  ncclGetVersion(&nccl);
  const size_t cublas = cublasLtGetVersion();
  return "CUDA " + std::to_string(runtime / 1000) + "." + std::to_string(runtime % 1000 / 10) + ", cuBLAS " +
         std::to_string(cublas / 10000) + "." + std::to_string(cublas % 10000 / 100) + "." + std::to_string(cublas % 100) +
         ", NCCL " + std::to_string(nccl / 10000) + "." + std::to_string(nccl % 10000 / 100) + "." + std::to_string(nccl % 100);
}

std::shared_ptr<std::byte> allocate(size_t num_bytes, int device_index) {
  CUDA_CHECK(cudaSetDevice(device_index));
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, num_bytes == 0 ? 1 : num_bytes);
  if (status != cudaSuccess) {
    throw DeviceError("GPU " + std::to_string(device_index) + ": allocating " + std::to_string(num_bytes) +
                      " bytes failed: " + cudaGetErrorString(status));
  }
  return {static_cast<std::byte*>(memory), [](std::byte* p) { cudaFree(p); }};
}

// Waits, since our streams do not wait for the default one, in which this runs.
void fill_zero(std::byte* data, size_t num_bytes) {
  CUDA_CHECK(cudaMemset(data, 0, num_bytes));
  CUDA_CHECK(cudaStreamSynchronize(nullptr));
}

void* create_stream(int device_index) {
  CUDA_CHECK(cudaSetDevice(device_index));
  cudaStream_t stream = nullptr;
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void destroy_stream(void* stream) { cudaStreamDestroy(static_cast<cudaStream_t>(stream)); }

void synchronize_stream(void* stream) { CUDA_CHECK(cudaStreamSynchronize(static_cast<cudaStream_t>(stream))); }

void copy_async(const std::byte* source, std::byte* destination, size_t num_bytes, void* stream) {
  CUDA_CHECK(cudaMemcpyAsync(destination, source, num_bytes, cudaMemcpyDefault, static_cast<cudaStream_t>(stream)));
}

}  // namespace skipper::cuda

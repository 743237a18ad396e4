// What a GPU is, what its driver offers, and whether the kernels of this build run on it.
#pragma once

#include <cstddef>
#include <string>

#include "tensor/device.h"

namespace skipper {

struct GpuProperties {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int major = 0;     // compute capability
  int minor = 0;
  int num_multiprocessors = 0;
  size_t total_bytes = 0;
  size_t free_bytes = 0;  // now, whoever uses the rest

  // Kernels are compiled for one architecture alone: wgmma exists in no other.
  bool runs_our_kernels() const { return major == 9; }
  std::string compute_capability() const { return std::to_string(major) + "." + std::to_string(minor); }
};

// Of GPU `index` < num_gpus(). Throws DeviceError.
GpuProperties gpu_properties(int index);

// "GPU 0 (NVIDIA H100 80GB HBM3, 85 GB, compute capability 9.0)".
std::string describe_gpu(int index, const GpuProperties& properties);

// The newest CUDA that the driver knows and the one of this build, as 1000 · major + 10 · minor; 0 without a driver or without
// CUDA in the build. Never throws.
struct CudaVersions {
  int driver = 0;
  int runtime = 0;
};
CudaVersions cuda_versions();

// Why num_gpus() is 0 in a build with CUDA: "no CUDA-capable device is detected"; empty where there is a GPU. Never throws.
std::string gpu_problem();

// Throws DeviceError when no kernel of this build runs on the GPU, naming it and what is needed.
void require_usable_gpu(Device device);

}  // namespace skipper

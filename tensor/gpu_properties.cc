#include "tensor/gpu_properties.h"

#include "base/build_config.h"
#include "base/error.h"
#include "tensor/cuda/gpu_properties.h"
#include "tensor/device_runtime.h"

namespace skipper {

GpuProperties gpu_properties(int index) {
  if constexpr (kBuiltWithCuda) return cuda::gpu_properties(index);
  throw DeviceError("GPU " + std::to_string(index) + " asked of a build without CUDA");
}

std::string describe_gpu(int index, const GpuProperties& properties) {
  constexpr size_t kGigabyte = 1'000'000'000;
  return "GPU " + std::to_string(index) + " (" + properties.name + ", " + std::to_string(properties.total_bytes / kGigabyte) +
         " GB, compute capability " + properties.compute_capability() + ")";
}

CudaVersions cuda_versions() {
  if constexpr (kBuiltWithCuda) return cuda::cuda_versions();
  return {};
}

std::string gpu_problem() {
  if constexpr (kBuiltWithCuda) return cuda::gpu_problem();
  return "this build has no CUDA";
}

void require_usable_gpu(Device device) {
  const GpuProperties properties = gpu_properties(device.index);
  if (properties.runs_our_kernels()) return;
  throw DeviceError(describe_gpu(device.index, properties) +
                    ": this build's kernels need a Hopper GPU (compute capability 9.0: H100, H200); use --device cpu");
}

}  // namespace skipper

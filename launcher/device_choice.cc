#include "launcher/device_choice.h"

#include <glog/logging.h>

#include "base/build_config.h"
#include "base/error.h"
#include "tensor/device_runtime.h"
#include "tensor/gpu_properties.h"

namespace skipper {
namespace {

Device gpu_of(int node_rank) { return Device::cuda(node_rank % num_gpus()); }

Device require_gpu(int node_rank) {
  if constexpr (!kBuiltWithCuda) {
    throw DeviceError("flag --device: cuda is not in this build; use --device cpu, or build with -DSKIPPER_WITH_CUDA=ON");
  }
  if (num_gpus() == 0) {
    throw DeviceError("flag --device: cuda finds no GPU (" + gpu_problem() + "); see 'skipper doctor', or use --device cpu");
  }
  const Device device = gpu_of(node_rank);
  require_usable_gpu(device);
  return device;
}

Device gpu_if_usable(int node_rank) {
  if (num_gpus() == 0) return Device::host();
  const Device device = gpu_of(node_rank);
  if (gpu_properties(device.index).runs_our_kernels()) return device;
  LOG(WARNING) << describe_device(device) << " is left alone: kernels need compute capability 9.0";
  return Device::host();
}

}  // namespace

DeviceChoice parse_device_choice(const std::string& text) {
  if (text == "cpu") return DeviceChoice::kCpu;
  if (text == "cuda") return DeviceChoice::kCuda;
  CHECK(text.empty() || text == "auto") << text;
  return DeviceChoice::kAuto;
}

Device choose_device(DeviceChoice choice, int node_rank) {
  switch (choice) {
    case DeviceChoice::kCpu:
      return Device::host();
    case DeviceChoice::kCuda:
      return require_gpu(node_rank);
    case DeviceChoice::kAuto:
      return gpu_if_usable(node_rank);
  }
  return Device::host();
}

std::string describe_device(Device device) {
  return device == Device::host() ? "CPU" : describe_gpu(device.index, gpu_properties(device.index));
}

int num_ranks_on(Device gpu, int num_ranks) {
  int count = 0;
  for (int rank = 0; rank < num_ranks; ++rank) count += rank % num_gpus() == gpu.index ? 1 : 0;
  return count;
}

}  // namespace skipper

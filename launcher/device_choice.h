// Which device a rank computes on.
#pragma once

#include <string>

#include "tensor/device.h"

namespace skipper {

enum class DeviceChoice {
  kCpu,
  kCuda,
  kAuto,  // a GPU if the kernels of this build run on one, else the CPU
};

// "cpu", "cuda", "auto" or, for none given, "".
DeviceChoice parse_device_choice(const std::string& text);

// GPU `node_rank` modulo the number of GPUs, where it is a GPU. Throws DeviceError when one is asked for and none can be used.
Device choose_device(DeviceChoice choice, int node_rank);

// "CPU", or the GPU with its name, memory and compute capability.
std::string describe_device(Device device);

// How many of `num_ranks` ranks of a host compute on this GPU when all choose one.
int num_ranks_on(Device gpu, int num_ranks);

}  // namespace skipper

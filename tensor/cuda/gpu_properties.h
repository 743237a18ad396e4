// The CUDA bodies of tensor/gpu_properties.h; only gpu_properties.cc includes this.
#pragma once

#include <string>

#include "tensor/gpu_properties.h"

namespace skipper::cuda {

GpuProperties gpu_properties(int index);
CudaVersions cuda_versions();
std::string gpu_problem();

}  // namespace skipper::cuda

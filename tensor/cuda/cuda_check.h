// CUDA_CHECK turns a CUDA runtime failure into a DeviceError with the expression and its location.
#pragma once

#include <cuda_runtime_api.h>

namespace skipper::cuda {

// Throws DeviceError unless `status` is cudaSuccess. Not inline: nvcc's front end cannot read base/error.h.
void check_status(cudaError_t status, const char* expression);

}  // namespace skipper::cuda

#define CUDA_CHECK(expression) ::skipper::cuda::check_status((expression), #expression)

// CUDA_CHECK turns a CUDA runtime failure into a DeviceError with the expression and its location.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "base/error.h"

#define CUDA_CHECK(expression)                                                                           \
  do {                                                                                                   \
    const cudaError_t cuda_status = (expression);                                                        \
    if (cuda_status != cudaSuccess) {                                                                    \
      throw ::skipper::DeviceError(std::string(#expression) + ": " + cudaGetErrorString(cuda_status));   \
    }                                                                                                    \
  } while (false)

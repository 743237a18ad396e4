// Matrices for measurements.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace skipper {

// shape [rows, columns], bf16 or f32: uniform numbers of a size that products keep. They do for timing and for a relative error,
// and are made faster than normal ones.
Tensor random_matrix(const Shape& shape, DType dtype, uint32_t seed);

}  // namespace skipper

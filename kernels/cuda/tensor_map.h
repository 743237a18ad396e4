// Descriptions of tensors for the copy engine.
#pragma once

#include <cuda.h>

#include "tensor/tensor.h"

namespace skipper::cuda {

// Boxes of `box_rows` rows (at most 256) × 64 columns of x [T, K] bf16 on the GPU, swizzled by 128 bytes as wgmma reads them.
// What lies outside x becomes zeros. Cheap enough to be made for each launch. Throws DeviceError.
CUtensorMap row_tiles_map(const Tensor& x, int box_rows);

}  // namespace skipper::cuda

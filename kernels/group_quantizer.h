// From weights to integer codes: one group at a time, the same codes wherever and however a matrix is packed.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/weight_format.h"
#include "tensor/dtype.h"

namespace skipper {

struct GroupCodes {
  bf16 scale;        // weight = scale · (code − zero)
  uint8_t zero = 0;  // 2^(bits − 1) for symmetric kinds
};

// Rounds one group: the scale is rounded to BF16 first and the codes are chosen against the rounded one. `importance` [n] is
// the mean square of each input over calibration data, or empty: then all inputs count alike. Of a fixed set of candidates
// those scale and zero point are taken that make Σ importance · (weight − rounded)² least; with importance they are then refined
// while this falls, in every format.
// A group of zeros has scale 0. Throws nothing; a NaN or infinite weight must be refused by the caller.
GroupCodes quantize_group(std::span<const float> weights, std::span<const float> importance, const WeightFormat& format,
                          std::span<uint8_t> codes);

}  // namespace skipper

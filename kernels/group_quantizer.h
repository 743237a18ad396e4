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
// the mean square of each input over calibration data, or empty: then all inputs count alike. With it the scale (and zero point)
// that minimise Σ importance · (weight − rounded)² among a fixed set of candidates are taken.
// A group of zeros has scale 0. Throws nothing; a NaN or infinite weight must be refused by the caller.
GroupCodes quantize_group(std::span<const float> weights, std::span<const float> importance, const WeightFormat& format,
                          std::span<uint8_t> codes);

}  // namespace skipper

// What a row becomes in an 8-bit code, in double precision and by searching all codes: the oracle of kernels/row_codes.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/row_codes.h"

namespace skipper {

// The value of an 8-bit code by its definition; NaN for those of e4m3 that are none.
double value_of_code(RowCode code, uint8_t bits);

// The row encoded and decoded.
std::vector<float> reference_coded_row(RowCode code, std::span<const float> row);

}  // namespace skipper

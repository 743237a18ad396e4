// Rows of floats as 8-bit codes with one scale per block of 128 channels: a row in little more than half the bytes of BF16.
#pragma once

#include <cstdint>

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

enum class RowCode : uint8_t {
  kInt8,  // two's complement, −127 to 127
  kE4m3,  // float8 e4m3fn: a sign, 4 bits of exponent, 3 of mantissa; up to 448, no infinity
};

inline constexpr int64_t kRowCodeBlock = 128;  // the last block of a row may be shorter

// A coded row: a code per channel, then the f32 scale of each block. Without padding, so scales may be unaligned.
constexpr int64_t coded_row_bytes(int64_t row_size) {
  return row_size + (row_size + kRowCodeBlock - 1) / kRowCodeBlock * 4;
}

// With m = max |x| of a block and c = 127 or 448, the largest value of a code: scale = m / c, code = x · (c / m) rounded to
// nearest even. So a decoded int8 is off by at most m / 254; a decoded e4m3 by 1/16 of itself, or m / 458752 where that is more.
//  - A block that holds a NaN or an infinity decodes to NaNs alone, for its scale is NaN.
//  - A block with m < 2^-116, denormals included, decodes to zeros: c / m would overflow.
// x [R, H] f32 · coded [R, coded_row_bytes(H)] u8
void encode_rows(const Tensor& x, RowCode code, Tensor& coded, Stream& stream);

// y[r] = scale · value of each code of coded row r; the code 127 of e4m3 is NaN, as the format says.
// coded [R, coded_row_bytes(H)] u8 · y [R, H] f32
void decode_rows(const Tensor& coded, RowCode code, Tensor& y, Stream& stream);

// y[r] = the decoded row row_index[r].
// coded [N, coded_row_bytes(H)] u8 · row_index [R] i32 · y [R, H] f32
void decode_listed_rows(const Tensor& coded, const Tensor& row_index, RowCode code, Tensor& y, Stream& stream);

namespace cpu {
void encode_rows(const Tensor& x, RowCode code, Tensor& coded, ThreadPool& workers);
void decode_rows(const Tensor& coded, const int32_t* row_index, RowCode code, Tensor& y, ThreadPool& workers);  // null: all
}  // namespace cpu

}  // namespace skipper

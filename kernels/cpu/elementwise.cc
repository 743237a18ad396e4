#include "kernels/elementwise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/cpu/element_type.h"

namespace skipper::cpu {
namespace {

// IEEE binary16 → binary32, exact. Subnormals are mantissa · 2^-24.
float half_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t widened = exponent == 31 ? 255u : exponent + 127 - 15;
  return std::bit_cast<float>(sign | (widened << 23) | (mantissa << 13));
}

void convert_half(const Tensor& x, Tensor& y) {
  float* target = y.data<float>();
  for (int64_t i = 0; i < x.num_elements(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, x.bytes() + i * 2, sizeof(bits));
    target[i] = half_to_float(bits);
  }
}

struct MatrixBatch {
  int64_t count;
  int64_t num_rows;
  int64_t num_columns;
};

// In square blocks: both the rows read and the rows written stay in the first-level cache.
template <typename Word>
void transpose_matrix(const Word* x, const MatrixBatch& size, Word* y) {
  constexpr int64_t kBlock = 32;
  for (int64_t row_begin = 0; row_begin < size.num_rows; row_begin += kBlock) {
    const int64_t row_end = std::min(row_begin + kBlock, size.num_rows);
    for (int64_t column_begin = 0; column_begin < size.num_columns; column_begin += kBlock) {
      const int64_t column_end = std::min(column_begin + kBlock, size.num_columns);
      for (int64_t row = row_begin; row < row_end; ++row) {
        for (int64_t column = column_begin; column < column_end; ++column) {
          y[column * size.num_rows + row] = x[row * size.num_columns + column];
        }
      }
    }
  }
}

template <typename Word>
void transpose_batch(const Tensor& x, const MatrixBatch& size, Tensor& y) {
  const int64_t stride = size.num_rows * size.num_columns;
  const auto* source = reinterpret_cast<const Word*>(x.bytes());
  auto* target = reinterpret_cast<Word*>(y.bytes());
  for (int64_t i = 0; i < size.count; ++i) transpose_matrix(source + i * stride, size, target + i * stride);
}

}  // namespace

void add(const Tensor& x, Tensor& y) {
  float* target = y.data<float>();
  with_floats(x, [&](const auto* source) {
    for (int64_t i = 0; i < x.num_elements(); ++i) target[i] += static_cast<float>(source[i]);
  });
}

void convert(const Tensor& x, Tensor& y) {
  if (x.dtype() == DType::kF16) return convert_half(x, y);
  with_floats(x, [&](const auto* source) {
    with_mutable_floats(y, [&]<typename T>(T* target) {
      for (int64_t i = 0; i < x.num_elements(); ++i) target[i] = static_cast<T>(static_cast<float>(source[i]));
    });
  });
}

void transpose(const Tensor& x, Tensor& y) {
  const int rank = x.shape().rank();
  MatrixBatch size{1, x.dim(rank - 2), x.dim(rank - 1)};
  for (int axis = 0; axis < rank - 2; ++axis) size.count *= x.dim(axis);
  if (size_of(x.dtype()) == 2) return transpose_batch<uint16_t>(x, size, y);
  transpose_batch<uint32_t>(x, size, y);
}

}  // namespace skipper::cpu

#include "kernels/elementwise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/cpu/element_type.h"
#include "kernels/cpu/row_pieces.h"
#include "kernels/cpu/row_sums.h"

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

void convert_half(const Tensor& x, Tensor& y, ThreadPool& workers) {
  float* target = y.data<float>();
  const std::byte* source = x.bytes();
  constexpr int64_t kBytes = 32;  // an element costs as much as copying these
  for_row_pieces(workers, {x.num_elements(), kBytes}, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint16_t bits;
      std::memcpy(&bits, source + i * 2, sizeof(bits));
      target[i] = half_to_float(bits);
    }
  });
}

struct AddKernel {
  template <int kWidth, typename T>
  [[gnu::always_inline]] static void run(const T* const& x, int64_t count, float* const& y) {
    for_each_vector<kWidth>(count, [&](const auto& load, const auto& store)
                                       __attribute__((always_inline)) { store(y, load(y) + load(x)); });
  }
};

struct ConvertKernel {
  template <int kWidth, typename S, typename T>
  [[gnu::always_inline]] static void run(const S* const& x, int64_t count, T* const& y) {
    for_each_vector<kWidth>(count,
                            [&](const auto& load, const auto& store) __attribute__((always_inline)) { store(y, load(x)); });
  }
};

struct MatrixBatch {
  int64_t count;
  int64_t num_rows;
  int64_t num_columns;
};

// In square blocks: both the rows read and the rows written stay in the first-level cache.
constexpr int64_t kBlock = 32;

// The block of rows from `row_begin` on becomes columns of y.
template <typename Word>
void transpose_rows(const Word* x, const MatrixBatch& size, int64_t row_begin, Word* y) {
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

template <typename Word>
void transpose_batch(const Tensor& x, const MatrixBatch& size, Tensor& y, ThreadPool& workers) {
  const int64_t stride = size.num_rows * size.num_columns;
  const int64_t blocks = (size.num_rows + kBlock - 1) / kBlock;
  const auto* source = reinterpret_cast<const Word*>(x.bytes());
  auto* target = reinterpret_cast<Word*>(y.bytes());
  const RowWork work{size.count * blocks, 2 * kBlock * size.num_columns * static_cast<int64_t>(sizeof(Word))};
  for_row_pieces(workers, work, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t matrix = i / blocks * stride;
      transpose_rows(source + matrix, size, i % blocks * kBlock, target + matrix);
    }
  });
}

}  // namespace

void add(const Tensor& x, Tensor& y, ThreadPool& workers) {
  float* target = y.data<float>();
  with_floats(x, [&]<typename T>(const T* source) {
    for_row_pieces(workers, {x.num_elements(), sizeof(T) + 2 * sizeof(float)}, [=](int64_t begin, int64_t end) {
      run_on_best_isa<AddKernel>(source + begin, end - begin, target + begin);
    });
  });
}

void convert(const Tensor& x, Tensor& y, ThreadPool& workers) {
  if (x.dtype() == DType::kF16) return convert_half(x, y, workers);
  with_floats(x, [&]<typename S>(const S* source) {
    with_mutable_floats(y, [&]<typename T>(T* target) {
      for_row_pieces(workers, {x.num_elements(), sizeof(S) + sizeof(T)}, [=](int64_t begin, int64_t end) {
        run_on_best_isa<ConvertKernel>(source + begin, end - begin, target + begin);
      });
    });
  });
}

void transpose(const Tensor& x, Tensor& y, ThreadPool& workers) {
  const int rank = x.shape().rank();
  MatrixBatch size{1, x.dim(rank - 2), x.dim(rank - 1)};
  for (int axis = 0; axis < rank - 2; ++axis) size.count *= x.dim(axis);
  if (size_of(x.dtype()) == 2) return transpose_batch<uint16_t>(x, size, y, workers);
  transpose_batch<uint32_t>(x, size, y, workers);
}

}  // namespace skipper::cpu

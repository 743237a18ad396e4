// Dot products of every row of x with every row of w, in register tiles whose shape never changes a sum.
//
// Each (row of x, row of w) pair has its own sixteen accumulators over the depth and the same tree at the end; a tile only
// decides how many pairs share the loads. So a result has the same bits in a 1 × 1 tile and in a 4 × 4 tile.
#pragma once

#include "kernels/cpu/simd.h"

namespace skipper::cpu {

// y[r][c] = Σ_k x[r][k] · w[c][k]; strides count elements between rows.
template <typename T>
struct DotOperands {
  const float* x;
  int64_t x_stride;
  const T* w;
  int64_t w_stride;
  int64_t depth;
  float* y;
  int64_t y_stride;

  [[gnu::always_inline]] DotOperands at(int64_t row, int64_t column) const {
    DotOperands moved = *this;
    moved.x += row * x_stride;
    moved.w += column * w_stride;
    moved.y += row * y_stride + column;
    return moved;
  }
};

// The tile that fills the accumulator registers: 32 of 16 floats, 16 of 8, 16 of 4.
template <int kWidth>
inline constexpr int kTileRows = kWidth == 16 ? 4 : (kWidth == 8 ? 2 : 1);
template <int kWidth>
inline constexpr int kTileColumns = kWidth == 16 ? 4 : 2;

// The last depth % 16 elements of a row, in the upper lanes: one full load where the row is long enough.
template <int kWidth, typename T>
[[gnu::always_inline]] inline Lanes<kWidth> load_tail(const T* row, int64_t depth) {
  const int64_t count = depth % kLanes;
  if (depth < kLanes) return Lanes<kWidth>::load_first(row, count);
  return Lanes<kWidth>::load(row + depth - kLanes).keep_last(count);
}

template <int kColumns, int kWidth>
[[gnu::always_inline]] inline void store_sums(const Lanes<kWidth> (&sums)[kColumns], float* y) {
  if constexpr (kColumns == 4) {
    const FourFloats four = sums_of_lanes(sums);
    __builtin_memcpy(y, &four, sizeof(four));
  } else {
    for (int c = 0; c < kColumns; ++c) y[c] = sum_of_lanes(sums[c]);
  }
}

template <int kWidth, int kRows, int kColumns, typename T>
[[gnu::always_inline]] inline void dot_tile(const DotOperands<T>& o) {
  using V = Lanes<kWidth>;
  V sums[kRows][kColumns];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kColumns; ++c) sums[r][c] = V::zero();
  }
  const auto add_step = [&](const auto& load) __attribute__((always_inline)) {
    V w[kColumns];
    for (int c = 0; c < kColumns; ++c) w[c] = load(o.w + c * o.w_stride);
    for (int r = 0; r < kRows; ++r) {
      const V x = load(o.x + r * o.x_stride);
      for (int c = 0; c < kColumns; ++c) sums[r][c].add_product(x, w[c]);
    }
  };
  const int64_t whole = o.depth - o.depth % kLanes;
  for (int64_t k = 0; k < whole; k += kLanes) {
    add_step([k](const auto* row) __attribute__((always_inline)) { return V::load(row + k); });
  }
  if (whole < o.depth) {
    add_step([&o](const auto* row) __attribute__((always_inline)) { return load_tail<kWidth>(row, o.depth); });
  }
  for (int r = 0; r < kRows; ++r) store_sums<kColumns>(sums[r], o.y + r * o.y_stride);
}

// One strip of kColumns rows of w against all rows of x: the strip stays in the first-level cache.
template <int kWidth, int kColumns, typename T>
[[gnu::always_inline]] inline void dot_strip(const DotOperands<T>& o, int64_t num_rows) {
  constexpr int kRows = kTileRows<kWidth>;
  int64_t r = 0;
  for (; r + kRows <= num_rows; r += kRows) dot_tile<kWidth, kRows, kColumns>(o.at(r, 0));
  if constexpr (kRows > 2) {
    if (r + 2 <= num_rows) {
      dot_tile<kWidth, 2, kColumns>(o.at(r, 0));
      r += 2;
    }
  }
  if constexpr (kRows > 1) {
    if (r < num_rows) dot_tile<kWidth, 1, kColumns>(o.at(r, 0));
  }
}

// All num_rows × num_columns dot products; each row of w is read once.
template <int kWidth, typename T>
[[gnu::always_inline]] inline void dot_products(const DotOperands<T>& o, int64_t num_rows, int64_t num_columns) {
  constexpr int kColumns = kTileColumns<kWidth>;
  int64_t c = 0;
  for (; c + kColumns <= num_columns; c += kColumns) dot_strip<kWidth, kColumns>(o.at(0, c), num_rows);
  for (; c < num_columns; ++c) dot_strip<kWidth, 1>(o.at(0, c), num_rows);
}

}  // namespace skipper::cpu

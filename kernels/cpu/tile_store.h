// Copies finished sums of a tile to the rows of a matrix.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/cpu/tile_driver.h"
#include "tensor/tensor.h"

namespace skipper::cpu {

// Columns of y [R, N] f32 that a tile holds sums of: the last panel may reach beyond N.
inline int64_t first_column(const TileSums& tile) { return tile.panel_begin * kPanelRows; }
inline int64_t num_columns(const TileSums& tile, const Tensor& y) {
  return std::min(tile.num_panels * kPanelRows, y.dim(1) - first_column(tile));
}

inline void store_tile_sums(const TileSums& tile, Tensor& y) {
  const auto num_bytes = static_cast<size_t>(num_columns(tile, y)) * sizeof(float);
  for (int64_t row = 0; row < tile.num_rows; ++row) {
    std::memcpy(y.row<float>(tile.row_begin + row) + first_column(tile), tile.sums + row * kSumsStride, num_bytes);
  }
}

// y += bias [N] in the tile.
template <typename T>
void add_to_tile(const TileSums& tile, const T* bias, Tensor& y) {
  const int64_t first = first_column(tile), count = num_columns(tile, y);
  for (int64_t row = 0; row < tile.num_rows; ++row) {
    float* values = y.row<float>(tile.row_begin + row) + first;
    for (int64_t n = 0; n < count; ++n) values[n] += static_cast<float>(bias[first + n]);
  }
}

}  // namespace skipper::cpu

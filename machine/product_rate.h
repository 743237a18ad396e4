// How fast the CPU kernels multiply with weights of a format: one row, which reads all weights for little work, and many rows.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/packed_matrix.h"
#include "kernels/linear.h"
#include "tensor/device_runtime.h"

namespace skipper {

class ProductRate {
 public:
  // Packs matrices of 2048 x 2048 in the format, more than caches hold, and rounds anew until they are that many.
  ProductRate(const WeightFormat& format, ThreadPool& workers);

  // Multiplies one row with all matrices; returns seconds.
  double measure_row_seconds();
  // Bytes of weights that this reads.
  size_t num_bytes() const;

  // Multiplies many rows with one matrix; returns seconds.
  double measure_tile_seconds();
  // Multiplications and additions that this makes.
  double num_operations() const;

 private:
  Stream stream_;
  std::vector<PackedLinear> weights_;
  Tensor row_, row_product_;    // [1, 2048]
  Tensor rows_, rows_product_;  // [many, 2048]
};

}  // namespace skipper

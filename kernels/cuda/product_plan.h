// How a product is cut into tiles and blocks: it chooses the time, never a bit of the result.
#pragma once

#include <optional>

#include "kernels/cuda/device_matrix.h"

namespace skipper::cuda {

// Dynamic shared memory of a block at most: what an SM has, less the kernel's own.
inline constexpr int kMaxSharedBytes = 222 * 1024;

struct ProductPlan {
  // Rows of a tile: narrow ones of 8, 16, 32 or 64 rows and 64 outputs, wide ones of 128, 192 or 256 rows and 128 outputs.
  int tile_width = 8;
  int num_blocks = 1;
  int shared_bytes = kMaxSharedBytes;  // for the stages of one block
};

ProductPlan dense_plan(const DeviceMatrices& w, int64_t num_rows);
// expected_rows: of an expert that has any. most_rows: of all experts together.
ProductPlan grouped_plan(const DeviceMatrices& w, int64_t expected_rows, int64_t most_rows);

// For benchmarks that compare plans: takes the place of both until reset. Engine thread only.
void override_product_plan(const std::optional<ProductPlan>& plan);

}  // namespace skipper::cuda

// How a product is cut into tiles and blocks: it chooses the time, never a bit of the result.
#pragma once

#include <optional>

#include "kernels/cuda/device_matrix.h"

namespace skipper::cuda {

// Dynamic shared memory of one block at most: what an SM has, less the kernel's own.
inline constexpr int kMaxSharedBytes = 222 * 1024;

struct ProductPlan {
  int warpgroups = 1;  // of 64 outputs each; 2 for wide tiles
  int tile_width = 8;  // rows of a tile: a power of two up to 64, or 128, 192, 256
  int num_blocks = 1;
  int shared_bytes = kMaxSharedBytes;  // for the stages of one block
};

ProductPlan dense_plan(const DeviceMatrices& w, int64_t num_rows);
// expected_rows: of an expert that has any.
ProductPlan grouped_plan(const DeviceMatrices& w, int64_t expected_rows);

// For benchmarks that compare plans: takes the place of both until reset. Engine thread only.
void override_product_plan(const std::optional<ProductPlan>& plan);

}  // namespace skipper::cuda

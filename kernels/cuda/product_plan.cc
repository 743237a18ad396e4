#include "kernels/cuda/product_plan.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "tensor/cuda/cuda_check.h"

namespace skipper::cuda {
namespace {

std::optional<ProductPlan> plan_of_benchmark;

int num_multiprocessors() {
  static const int count = [] {
    int device = 0, value = 0;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device));
    return value;
  }();
  return count;
}

int64_t tiles_of(int64_t rows, int64_t tile) { return (rows + tile - 1) / tile; }

int power_of_two_at_least(int64_t value, int least, int most) {
  int power = least;
  while (power < value && power < most) power *= 2;
  return power;
}

ProductPlan wide(int tile_width) { return {.warpgroups = 2, .tile_width = tile_width, .num_blocks = num_multiprocessors()}; }

// Narrow tiles read weights at the speed of memory when enough bytes are under way: one block with all of an SM's shared memory
// where there are fewer tiles than SMs, else two that take turns at waiting.
ProductPlan narrow(int warpgroups, int tile_width, int64_t num_tiles) {
  const int sms = num_multiprocessors();
  if (num_tiles <= sms) return {warpgroups, tile_width, static_cast<int>(num_tiles), kMaxSharedBytes};
  return {warpgroups, tile_width, 2 * sms, kMaxSharedBytes / 2 - 4 * 1024};
}

}  // namespace

ProductPlan dense_plan(const DeviceMatrices& w, int64_t num_rows) {
  if (plan_of_benchmark) return *plan_of_benchmark;
  const int64_t wide_row_tiles = tiles_of(w.shape.num_rows, 2 * kTileRows);
  if (num_rows > 128) {
    for (const int width : {256, 128}) {
      if (wide_row_tiles * tiles_of(num_rows, width) >= num_multiprocessors() * 3 / 4) return wide(width);
    }
  }
  const int width = power_of_two_at_least(num_rows, 8, 64);
  const int warpgroups = wide_row_tiles >= num_multiprocessors() ? 2 : 1;
  const int64_t tiles = tiles_of(w.shape.num_rows, warpgroups * kTileRows) * tiles_of(num_rows, width);
  return narrow(warpgroups, width, tiles);
}

ProductPlan grouped_plan(const DeviceMatrices& w, int64_t expected_rows) {
  if (plan_of_benchmark) return *plan_of_benchmark;
  // Wide enough that an expert with more rows than others is rarely read twice.
  if (expected_rows > 24) {
    return wide(static_cast<int>(std::clamp<int64_t>(tiles_of(expected_rows * 5 / 4, 64) * 64, 128, 256)));
  }
  const int width = power_of_two_at_least(3 * expected_rows, 8, 64);
  // How many experts have rows is not known here.
  return narrow(1, width, static_cast<int64_t>(w.num_matrices()) * tiles_of(w.shape.num_rows, kTileRows));
}

void override_product_plan(const std::optional<ProductPlan>& plan) { plan_of_benchmark = plan; }

}  // namespace skipper::cuda

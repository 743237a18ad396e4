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

ProductPlan wide(int tile_width) { return {.tile_width = tile_width, .num_blocks = num_multiprocessors()}; }

// Shared memory of an SM, less what the system and each block keep of it.
int shared_bytes(int blocks_per_multiprocessor) { return 228 * 1024 / blocks_per_multiprocessor - 6 * 1024; }

// Narrow tiles read weights at the speed of memory when enough bytes are under way. One block with all of an SM's shared memory
// does where there are fewer tiles than SMs; else two take turns at waiting, and three where codes must become BF16 besides.
ProductPlan narrow(const DeviceMatrices& w, int tile_width, int64_t num_tiles) {
  const int64_t sms = num_multiprocessors();
  const bool is_float = std::ranges::none_of(w.formats, [](const WeightFormat& format) { return format.is_integer(); });
  const int64_t most = is_float || tile_width > 32 ? 2 : 3;  // registers allow no more
  const int64_t per_sm = std::clamp<int64_t>(tiles_of(num_tiles, sms), 1, most);
  return {.tile_width = tile_width,
          .num_blocks = static_cast<int>(std::min(num_tiles, per_sm * sms)),
          .shared_bytes = shared_bytes(static_cast<int>(per_sm))};
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
  return narrow(w, width, tiles_of(w.shape.num_rows, kTileRows) * tiles_of(num_rows, width));
}

ProductPlan grouped_plan(const DeviceMatrices& w, int64_t expected_rows, int64_t most_rows) {
  if (plan_of_benchmark) return *plan_of_benchmark;
  // Wide enough that an expert with more rows than others is rarely read twice.
  if (expected_rows > 24) {
    return wide(static_cast<int>(std::clamp<int64_t>(tiles_of(expected_rows * 5 / 4, 64) * 64, 128, 256)));
  }
  const int width = power_of_two_at_least(3 * expected_rows, 8, 64);
  // How many experts have rows is not known here, but that each of them has one.
  const int64_t most_matrices = std::clamp<int64_t>(most_rows, 1, w.num_matrices());
  return narrow(w, width, most_matrices * tiles_of(w.shape.num_rows, kTileRows));
}

void override_product_plan(const std::optional<ProductPlan>& plan) { plan_of_benchmark = plan; }

}  // namespace skipper::cuda

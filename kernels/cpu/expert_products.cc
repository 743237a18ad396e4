#include "kernels/expert_products.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/tile_driver.h"
#include "kernels/cpu/tile_store.h"

namespace skipper::cpu {
namespace {

// One product per expert, in memory of the calling thread that only grows.
std::span<const PanelProduct> products_of(std::span<const PackedMatrix> experts, const Tensor& row_offsets) {
  thread_local std::vector<PanelProduct> products;
  const int32_t* offsets = row_offsets.data<int32_t>();
  products.clear();
  for (size_t e = 0; e < experts.size(); ++e) products.push_back({&experts[e], offsets[e], offsets[e + 1] - offsets[e]});
  return products;
}

// Panels of `sums` are gate and up in turn; each pair becomes sixteen columns of y.
struct SwigluTile {
  const TileSums& tile;
  float* y;  // first row and column of the tile
  int64_t y_stride;
  int64_t num_columns;
};

struct SwigluTileKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const SwigluTile& pairs) {
    using V = Lanes<kWidth>;
    const V one = V::broadcast(1.0f);
    for (int64_t row = 0; row < pairs.tile.num_rows; ++row) {
      const float* sums = pairs.tile.sums + row * kSumsStride;
      float* y = pairs.y + row * pairs.y_stride;
      for (int64_t column = 0; column < pairs.num_columns; column += kPanelRows, sums += 2 * kPanelRows) {
        const V gate = V::load(sums);
        const V activated = gate / (one + exp(V::zero() - gate)) * V::load(sums + kPanelRows);
        const int64_t count = std::min(kPanelRows, pairs.num_columns - column);
        if (count == kPanelRows) {
          activated.store(y + column);
        } else {
          activated.store_first(y + column, count);
        }
      }
    }
  }
};

void store_swiglu(const TileSums& tile, Tensor& activated) {
  const int64_t stride = activated.dim(1);
  const int64_t first = tile.panel_begin / 2 * kPanelRows;
  const int64_t count = std::min(tile.num_panels / 2 * kPanelRows, stride - first);
  run_on_best_isa<SwigluTileKernel>(SwigluTile{tile, activated.row<float>(tile.row_begin) + first, stride, count});
}

}  // namespace

void expert_gate_up(const ExpertRows& rows, std::span<const PackedMatrix> gate_up, Tensor& activated, ThreadPool& workers) {
  const auto finish = [&](const TileSums& tile) { store_swiglu(tile, activated); };
  multiply_panels({rows.tokens, rows.row_index.data<int32_t>()}, products_of(gate_up, rows.row_offsets), TileFinish(finish),
                  workers);
}

void expert_down(const ExpertDownInput& input, std::span<const PackedMatrix> down, Tensor& y, ThreadPool& workers) {
  const auto finish = [&](const TileSums& tile) { store_tile_sums(tile, y); };
  multiply_panels({input.activated}, products_of(down, input.row_offsets), TileFinish(finish), workers);
}

}  // namespace skipper::cpu

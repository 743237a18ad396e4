#include "kernels/linear.h"

#include "kernels/cpu/element_type.h"
#include "kernels/cpu/tile_driver.h"
#include "kernels/cpu/tile_store.h"

namespace skipper::cpu {

void linear(const Tensor& x, const PackedLinear& weights, Tensor& y, ThreadPool& workers) {
  const PanelProduct product = {&weights.weight, 0, x.dim(0)};
  if (!weights.bias.defined()) {
    const auto store = [&](const TileSums& tile) { store_tile_sums(tile, y); };
    return multiply_panels({x}, {&product, 1}, TileFinish(store), workers);
  }
  with_floats(weights.bias, [&](const auto* bias) {
    const auto store = [&, bias](const TileSums& tile) {
      store_tile_sums(tile, y);
      add_to_tile(tile, bias, y);
    };
    multiply_panels({x}, {&product, 1}, TileFinish(store), workers);
  });
}

}  // namespace skipper::cpu

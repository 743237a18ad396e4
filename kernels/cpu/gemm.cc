#include "kernels/gemm.h"

#include <algorithm>

#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/element_type.h"

namespace skipper::cpu {
namespace {

// Rows of x that are worked on together, so that they stay in the second-level cache while the weights stream by once per
// block. Blocks do not touch a row's sum.
constexpr int64_t kRowBlockBytes = int64_t{32} << 10;
constexpr int64_t kMinBlockRows = 16;

struct MatrixSize {
  int64_t num_rows;
  int64_t num_columns;
};

struct GemmKernel {
  template <int kWidth, typename T>
  [[gnu::always_inline]] static void run(const DotOperands<T>& operands, const MatrixSize& size) {
    const int64_t row_bytes = std::max<int64_t>(1, operands.depth) * int64_t{sizeof(float)};
    const int64_t block_rows = std::max(kMinBlockRows, kRowBlockBytes / row_bytes);
    for (int64_t begin = 0; begin < size.num_rows; begin += block_rows) {
      const int64_t num_rows = std::min(block_rows, size.num_rows - begin);
      dot_products<kWidth>(operands.at(begin, 0), num_rows, size.num_columns);
    }
  }
};

template <typename T>
void add_bias(const T* bias, Tensor& y) {
  for (int64_t row = 0; row < y.dim(0); ++row) {
    float* values = y.row<float>(row);
    for (int64_t n = 0; n < y.dim(1); ++n) values[n] += static_cast<float>(bias[n]);
  }
}

}  // namespace

void gemm(const Tensor& x, const LinearWeights& weights, Tensor& y) {
  const int64_t depth = x.dim(1);
  with_floats(weights.weight, [&]<typename T>(const T* w) {
    const DotOperands<T> operands{x.data<float>(), depth, w, depth, depth, y.data<float>(), y.dim(1)};
    run_on_best_isa<GemmKernel>(operands, MatrixSize{x.dim(0), y.dim(1)});
  });
  if (weights.bias.defined()) {
    with_floats(weights.bias, [&](const auto* bias) { add_bias(bias, y); });
  }
}

}  // namespace skipper::cpu

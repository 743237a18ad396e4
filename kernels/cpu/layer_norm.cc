#include "kernels/layer_norm.h"

#include <cmath>

#include "kernels/cpu/element_type.h"
#include "kernels/cpu/row_pieces.h"
#include "kernels/cpu/row_sums.h"

namespace skipper::cpu {
namespace {

template <typename T, typename B>
struct LayerNormRows {
  const float* x;
  const T* weight;
  const B* bias;
  float* y;
  int64_t num_rows;
  int64_t row_size;
  float epsilon;
};

struct LayerNormKernel {
  template <int kWidth, typename T, typename B>
  [[gnu::always_inline]] static void run(const LayerNormRows<T, B>& rows) {
    for (int64_t row = 0; row < rows.num_rows; ++row) {
      normalize<kWidth>(rows, rows.x + row * rows.row_size, rows.y + row * rows.row_size);
    }
  }

  // Mean first, then the squares of the centred values: E[x²] − E[x]² would cancel.
  template <int kWidth, typename T, typename B>
  [[gnu::always_inline]] static void normalize(const LayerNormRows<T, B>& rows, const float* x, float* y) {
    using V = Lanes<kWidth>;
    const auto size = static_cast<float>(rows.row_size);
    const float sum = sum_over_row<kWidth>(x, rows.row_size, [](const V& v) __attribute__((always_inline)) { return v; });
    const V mean = V::broadcast(sum / size);
    for_each_vector<kWidth>(rows.row_size, [&](const auto& load, const auto& store) __attribute__((always_inline)) {
      store(y, load(x) - mean);
    });
    const float squares = sum_over_row<kWidth>(y, rows.row_size, [](const V& v) __attribute__((always_inline)) { return v * v; });
    const V scale = V::broadcast(1.0f / std::sqrt(squares / size + rows.epsilon));
    for_each_vector<kWidth>(rows.row_size, [&](const auto& load, const auto& store) __attribute__((always_inline)) {
      store(y, load(y) * scale * load(rows.weight) + load(rows.bias));
    });
  }
};

}  // namespace

void layer_norm(const Tensor& x, const LayerNormWeights& weights, Tensor& y, ThreadPool& workers) {
  const float* source = x.data<float>();
  float* target = y.data<float>();
  const int64_t size = weights.weight.dim(0);
  constexpr int64_t kElementBytes = 16;  // read, and written twice
  with_floats(weights.weight, [&]<typename T>(const T* weight) {
    with_floats(weights.bias, [&]<typename B>(const B* bias) {
      for_row_pieces(workers, {x.num_elements() / size, size * kElementBytes}, [&](int64_t begin, int64_t end) {
        const int64_t offset = begin * size;
        run_on_best_isa<LayerNormKernel>(
            LayerNormRows<T, B>{source + offset, weight, bias, target + offset, end - begin, size, weights.epsilon});
      });
    });
  });
}

}  // namespace skipper::cpu

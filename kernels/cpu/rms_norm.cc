#include "kernels/rms_norm.h"

#include <cmath>

#include "kernels/cpu/element_type.h"
#include "kernels/cpu/row_sums.h"

namespace skipper::cpu {
namespace {

template <typename T>
struct RmsNormRows {
  const float* x;
  const T* weight;
  float* y;
  int64_t num_rows;
  int64_t row_size;
  float epsilon;
};

struct RmsNormKernel {
  template <int kWidth, typename T>
  [[gnu::always_inline]] static void run(const RmsNormRows<T>& rows) {
    for (int64_t row = 0; row < rows.num_rows; ++row) {
      normalize<kWidth>(rows, rows.x + row * rows.row_size, rows.y + row * rows.row_size);
    }
  }

  template <int kWidth, typename T>
  [[gnu::always_inline]] static void normalize(const RmsNormRows<T>& rows, const float* x, float* y) {
    using V = Lanes<kWidth>;
    const float sum = sum_over_row<kWidth>(x, rows.row_size, [](const V& v) __attribute__((always_inline)) { return v * v; });
    const V scale = V::broadcast(1.0f / std::sqrt(sum / static_cast<float>(rows.row_size) + rows.epsilon));
    for_each_vector<kWidth>(rows.row_size, [&](const auto& load, const auto& store) __attribute__((always_inline)) {
      store(y, load(x) * scale * load(rows.weight));
    });
  }
};

}  // namespace

void rms_norm(const Tensor& x, const Tensor& weight, float epsilon, Tensor& y) {
  const int64_t row_size = weight.dim(0);
  with_floats(weight, [&]<typename T>(const T* w) {
    run_on_best_isa<RmsNormKernel>(
        RmsNormRows<T>{x.data<float>(), w, y.data<float>(), x.num_elements() / row_size, row_size, epsilon});
  });
}

}  // namespace skipper::cpu

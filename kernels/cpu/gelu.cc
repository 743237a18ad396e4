#include "kernels/gelu.h"

#include <cmath>

#include "kernels/cpu/row_pieces.h"
#include "kernels/cpu/row_sums.h"

namespace skipper::cpu {
namespace {

struct Rows {
  float* x;
  int64_t num_rows;
  int64_t row_size;
};

// x · (1 + tanh(u)) / 2 = x / (1 + e^(-2u)) with u = sqrt(2/π) · (x + 0.044715 · x³).
struct GeluTanhKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const Rows& rows) {
    using V = Lanes<kWidth>;
    constexpr float kMinusTwoSqrtTwoOverPi = -1.5957691216f;
    const V one = V::broadcast(1.0f), cubic = V::broadcast(0.044715f), factor = V::broadcast(kMinusTwoSqrtTwoOverPi);
    for (int64_t row = 0; row < rows.num_rows; ++row) {
      float* values = rows.x + row * rows.row_size;
      for_each_vector<kWidth>(rows.row_size, [&](const auto& load, const auto& store) __attribute__((always_inline)) {
        const V x = load(values);
        store(values, x / (one + exp(factor * (x + cubic * x * x * x))));
      });
    }
  }
};

void gelu_erf(float* x, int64_t count) {
  constexpr float kSqrtHalf = 0.70710678f;
  for (int64_t i = 0; i < count; ++i) x[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * kSqrtHalf));
}

}  // namespace

void gelu(Tensor& x, GeluForm form, ThreadPool& workers) {
  const int64_t row_size = x.dim(x.shape().rank() - 1);
  if (row_size == 0) return;
  float* values = x.data<float>();
  const int64_t element_bytes = form == GeluForm::kErf ? 128 : 32;  // what a copy would move in an element's time
  // Row by row, so that an element's place among the lanes depends on its column only.
  for_row_pieces(workers, {x.num_elements() / row_size, row_size * element_bytes}, [=](int64_t begin, int64_t end) {
    float* rows = values + begin * row_size;
    if (form == GeluForm::kErf) return gelu_erf(rows, (end - begin) * row_size);
    run_on_best_isa<GeluTanhKernel>(Rows{rows, end - begin, row_size});
  });
}

}  // namespace skipper::cpu

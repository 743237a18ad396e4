#include "kernels/rms_norm.h"

#include "kernels/cpu/element_type.h"
#include "kernels/cpu/normalize_row.h"
#include "kernels/cpu/row_pieces.h"

namespace skipper::cpu {
namespace {

struct RmsNormKernel {
  template <int kWidth, typename T>
  [[gnu::always_inline]] static void run(const RowNorm<T>& norm, int64_t num_rows, const float* const& x, float* const& y) {
    for (int64_t row = 0; row < num_rows; ++row) normalize_row<kWidth>(norm, x + row * norm.size, y + row * norm.size);
  }
};

struct ResidualRows {
  const float* x;
  float* hidden;
  float* normed;
  int64_t num_rows;
};

// The squares are summed as in normalize_row, so that both ways give the same bits.
struct AddRmsNormKernel {
  template <int kWidth, typename T>
  [[gnu::always_inline]] static void run(const RowNorm<T>& norm, const ResidualRows& rows) {
    for (int64_t row = 0; row < rows.num_rows; ++row) {
      const int64_t offset = row * norm.size;
      float* const hidden = rows.hidden + offset;
      const float squares = add_row<kWidth>(rows.x + offset, norm.size, hidden);
      scale_row<kWidth>(norm, squares, hidden, rows.normed + offset);
    }
  }

  // hidden += x; returns the sum of the squares.
  template <int kWidth>
  [[gnu::always_inline]] static float add_row(const float* x, int64_t size, float* hidden) {
    using V = Lanes<kWidth>;
    V sum = V::zero();
    for_each_vector<kWidth>(size, [&](const auto& load, const auto& store) __attribute__((always_inline)) {
      const V total = load(hidden) + load(x);
      store(hidden, total);
      sum = sum + total * total;
    });
    return sum_of_lanes(sum);
  }
};

}  // namespace

void rms_norm(const Tensor& x, const Tensor& weight, float epsilon, Tensor& y, ThreadPool& workers) {
  const float* source = x.data<float>();
  float* target = y.data<float>();
  const int64_t size = weight.dim(0);
  constexpr int64_t kElementBytes = 2 * sizeof(float);
  with_floats(weight, [&]<typename T>(const T* w) {
    const RowNorm<T> norm{w, size, epsilon};
    for_row_pieces(workers, {x.num_elements() / size, size * kElementBytes}, [&](int64_t begin, int64_t end) {
      run_on_best_isa<RmsNormKernel>(norm, end - begin, source + begin * size, target + begin * size);
    });
  });
}

void add_rms_norm(const Tensor& x, const RmsNormWeights& weights, Tensor& hidden, Tensor& normed, ThreadPool& workers) {
  const ResidualRows all{x.data<float>(), hidden.data<float>(), normed.data<float>(), x.num_elements() / weights.weight.dim(0)};
  constexpr int64_t kElementBytes = 4 * sizeof(float);
  with_floats(weights.weight, [&]<typename T>(const T* w) {
    const RowNorm<T> norm{w, weights.weight.dim(0), weights.epsilon};
    for_row_pieces(workers, {all.num_rows, norm.size * kElementBytes}, [&](int64_t begin, int64_t end) {
      const int64_t offset = begin * norm.size;
      const ResidualRows rows{all.x + offset, all.hidden + offset, all.normed + offset, end - begin};
      run_on_best_isa<AddRmsNormKernel>(norm, rows);
    });
  });
}

}  // namespace skipper::cpu

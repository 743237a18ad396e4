#include "kernels/swiglu.h"

#include "kernels/cpu/row_pieces.h"
#include "kernels/cpu/row_sums.h"

namespace skipper::cpu {
namespace {

struct SwigluRows {
  const float* gate_up;
  float* y;
  int64_t num_rows;
  int64_t intermediate_size;
};

struct SwigluKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const SwigluRows& rows) {
    using V = Lanes<kWidth>;
    const V one = V::broadcast(1.0f);
    for (int64_t row = 0; row < rows.num_rows; ++row) {
      const float* gate = rows.gate_up + row * 2 * rows.intermediate_size;
      const float* up = gate + rows.intermediate_size;
      float* y = rows.y + row * rows.intermediate_size;
      for_each_vector<kWidth>(rows.intermediate_size, [&](const auto& load, const auto& store) __attribute__((always_inline)) {
        const V x = load(gate);
        store(y, x / (one + exp(V::zero() - x)) * load(up));
      });
    }
  }
};

}  // namespace

void swiglu(const Tensor& gate_up, Tensor& y, ThreadPool& workers) {
  const float* source = gate_up.data<float>();
  float* target = y.data<float>();
  const int64_t size = y.dim(1);
  constexpr int64_t kElementBytes = 32;  // what a copy would move in the time of an exponential and a division
  for_row_pieces(workers, {y.dim(0), size * kElementBytes}, [=](int64_t begin, int64_t end) {
    run_on_best_isa<SwigluKernel>(SwigluRows{source + begin * 2 * size, target + begin * size, end - begin, size});
  });
}

}  // namespace skipper::cpu

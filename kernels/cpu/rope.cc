#include "kernels/rope.h"

#include <vector>

#include "kernels/cpu/row_sums.h"
#include "kernels/cpu/sine_cosine.h"

namespace skipper::cpu {
namespace {

struct Rotation {
  float* x;  // one token, [heads, D]
  const float* cosine;
  const float* sine;
  int64_t num_heads;
  int64_t half;
};

struct RotateKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const Rotation& rotation) {
    using V = Lanes<kWidth>;
    for (int64_t head = 0; head < rotation.num_heads; ++head) {
      float* low = rotation.x + head * 2 * rotation.half;
      float* high = low + rotation.half;
      for_each_vector<kWidth>(rotation.half, [&](const auto& load, const auto& store) __attribute__((always_inline)) {
        const V a = load(low), b = load(high), cosine = load(rotation.cosine), sine = load(rotation.sine);
        store(low, a * cosine - b * sine);
        store(high, b * cosine + a * sine);
      });
    }
  }
};

}  // namespace

void rope(Tensor& x, const Tensor& angles) {
  const int64_t half = angles.dim(1);
  std::vector<float> cosine(static_cast<size_t>(half)), sine(static_cast<size_t>(half));
  for (int64_t t = 0; t < x.dim(0); ++t) {
    run_on_best_isa<SineCosineKernel>(angles.row<float>(t), half, SineCosine{sine.data(), cosine.data()});
    run_on_best_isa<RotateKernel>(Rotation{x.row<float>(t), cosine.data(), sine.data(), x.dim(1), half});
  }
}

}  // namespace skipper::cpu

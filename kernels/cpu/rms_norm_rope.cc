#include "kernels/rms_norm_rope.h"

#include "kernels/cpu/element_type.h"
#include "kernels/cpu/normalize_row.h"
#include "kernels/cpu/rotate_heads.h"
#include "kernels/cpu/row_pieces.h"

namespace skipper::cpu {
namespace {

// Token by token, so that a token's heads are still in the first-level cache when they turn.
struct NormalizeAndRotateKernel {
  template <int kWidth, typename T>
  [[gnu::always_inline]] static void run(const RowNorm<T>& norm, const TokenHeads& first, const float* const& angles,
                                         int64_t num_tokens) {
    TokenHeads heads = first;
    for (int64_t t = 0; t < num_tokens; ++t, heads.x += heads.num_heads * norm.size) {
      for (int64_t head = 0; head < heads.num_heads; ++head) {
        float* const x = heads.x + head * norm.size;
        normalize_row<kWidth>(norm, x, x);
      }
      rotate_heads<kWidth>(heads, angles + t * heads.half);
    }
  }
};

}  // namespace

void rms_norm_rope(Tensor& x, const RmsNormWeights& weights, const Tensor& angles, ThreadPool& workers) {
  float* values = x.data<float>();
  const float* radians = angles.data<float>();
  const int64_t half = angles.dim(1), num_heads = x.dim(1);
  // A sine with its cosine costs as much as moving 64 bytes.
  const RowWork work{x.dim(0), half * (64 + num_heads * 8 * static_cast<int64_t>(sizeof(float)))};
  with_floats(weights.weight, [&]<typename T>(const T* w) {
    const RowNorm<T> norm{w, 2 * half, weights.epsilon};
    for_row_pieces(workers, work, [&](int64_t begin, int64_t end) {
      const TokenHeads heads{values + begin * num_heads * 2 * half, num_heads, half};
      run_on_best_isa<NormalizeAndRotateKernel>(norm, heads, radians + begin * half, end - begin);
    });
  });
}

}  // namespace skipper::cpu

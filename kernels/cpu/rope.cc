#include "kernels/rope.h"

#include "kernels/cpu/rotate_heads.h"
#include "kernels/cpu/row_pieces.h"

namespace skipper::cpu {
namespace {

struct RotateKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const TokenHeads& first, const float* const& angles, int64_t num_tokens) {
    TokenHeads heads = first;
    for (int64_t t = 0; t < num_tokens; ++t, heads.x += heads.num_heads * 2 * heads.half) {
      rotate_heads<kWidth>(heads, angles + t * heads.half);
    }
  }
};

}  // namespace

void rope(Tensor& x, const Tensor& angles, ThreadPool& workers) {
  float* values = x.data<float>();
  const float* radians = angles.data<float>();
  const int64_t half = angles.dim(1), num_heads = x.dim(1);
  // A sine with its cosine costs as much as moving 64 bytes.
  const RowWork work{x.dim(0), half * (64 + num_heads * 4 * static_cast<int64_t>(sizeof(float)))};
  for_row_pieces(workers, work, [=](int64_t begin, int64_t end) {
    const TokenHeads heads{values + begin * num_heads * 2 * half, num_heads, half};
    run_on_best_isa<RotateKernel>(heads, radians + begin * half, end - begin);
  });
}

}  // namespace skipper::cpu

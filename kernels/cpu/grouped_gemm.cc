#include "kernels/grouped_gemm.h"

#include "kernels/gemm.h"

namespace skipper::cpu {

void grouped_gemm(const Tensor& x, const Tensor& w, const Tensor& row_offsets, Tensor& y) {
  const int32_t* offsets = row_offsets.data<int32_t>();
  for (int64_t expert = 0; expert < w.dim(0); ++expert) {
    const int32_t begin = offsets[expert], end = offsets[expert + 1];
    if (begin == end) continue;  // its weights stay untouched, perhaps on disk
    Tensor expert_rows = y.slice(begin, end);
    gemm(x.slice(begin, end), {.weight = w.at(expert), .bias = {}}, expert_rows);
  }
}

}  // namespace skipper::cpu

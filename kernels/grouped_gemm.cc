#include "kernels/grouped_gemm.h"

#include "kernels/operand_checks.h"

namespace skipper {

void grouped_gemm(const Tensor& x, const Tensor& w, const Tensor& row_offsets, Tensor& y, Stream&) {
  check_on_host("grouped_gemm", {&x, &w, &row_offsets, &y});
  check_floats("grouped_gemm", w);
  check_index("grouped_gemm", row_offsets);
  CHECK_EQ(x.shape().rank(), 2) << "grouped_gemm: x " << x.shape().to_string();
  CHECK(w.shape().rank() == 3 && w.dim(2) == x.dim(1))
      << "grouped_gemm: x " << x.shape().to_string() << " does not fit weights " << w.shape().to_string();
  CHECK_EQ(row_offsets.dim(0), w.dim(0) + 1) << "grouped_gemm: one offset more than experts";
  check_f32("grouped_gemm", x, x.shape());
  check_f32("grouped_gemm", y, {x.dim(0), w.dim(1)});
  cpu::grouped_gemm(x, w, row_offsets, y);
}

}  // namespace skipper

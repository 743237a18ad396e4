#include "kernels/gemm.h"

#include "kernels/operand_checks.h"

namespace skipper {

void gemm(const Tensor& x, const LinearWeights& weights, Tensor& y, Stream&) {
  const Tensor& w = weights.weight;
  check_on_host("gemm", {&x, &w, &y});
  CHECK_EQ(x.shape().rank(), 2) << "gemm: x " << x.shape().to_string();
  check_floats("gemm", w);
  CHECK(w.shape().rank() == 2 && w.dim(1) == x.dim(1))
      << "gemm: x " << x.shape().to_string() << " does not fit weight " << w.shape().to_string();
  check_f32("gemm", x, x.shape());
  check_f32("gemm", y, {x.dim(0), w.dim(0)});
  if (weights.bias.defined()) {
    check_on_host("gemm", {&weights.bias});
    check_floats("gemm", weights.bias);
    CHECK(weights.bias.shape() == Shape({w.dim(0)})) << "gemm: bias " << weights.bias.shape().to_string();
  }
  cpu::gemm(x, weights, y);
}

}  // namespace skipper

#include "kernels/rms_norm.h"

#include "kernels/operand_checks.h"

namespace skipper {

void rms_norm(const Tensor& x, const Tensor& weight, float epsilon, Tensor& y, Stream&) {
  check_on_host("rms_norm", {&x, &weight, &y});
  check_floats("rms_norm", weight);
  CHECK_EQ(weight.shape().rank(), 1) << "rms_norm: weight " << weight.shape().to_string();
  CHECK_GT(weight.dim(0), 0) << "rms_norm: empty rows";
  CHECK_EQ(x.num_elements() % weight.dim(0), 0) << "rms_norm: x " << x.shape().to_string() << ", weight " << weight.dim(0);
  check_f32("rms_norm", x, x.shape());
  check_f32("rms_norm", y, x.shape());
  cpu::rms_norm(x, weight, epsilon, y);
}

}  // namespace skipper

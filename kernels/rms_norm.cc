#include "kernels/rms_norm.h"

#include "kernels/operand_checks.h"

namespace skipper {
namespace {

void check_rows(const Tensor& x, const Tensor& weight) {
  check_floats("rms_norm", weight);
  CHECK_EQ(weight.shape().rank(), 1) << "rms_norm: weight " << weight.shape().to_string();
  CHECK_GT(weight.dim(0), 0) << "rms_norm: empty rows";
  CHECK_EQ(x.num_elements() % weight.dim(0), 0) << "rms_norm: x " << x.shape().to_string() << ", weight " << weight.dim(0);
  check_f32("rms_norm", x, x.shape());
}

}  // namespace

void rms_norm(const Tensor& x, const Tensor& weight, float epsilon, Tensor& y, Stream& stream) {
  check_on_host("rms_norm", {&x, &weight, &y});
  check_rows(x, weight);
  check_f32("rms_norm", y, x.shape());
  cpu::rms_norm(x, weight, epsilon, y, stream.workers());
}

void add_rms_norm(const Tensor& x, const RmsNormWeights& weights, Tensor& hidden, Tensor& normed, Stream& stream) {
  check_on_host("add_rms_norm", {&x, &weights.weight, &hidden, &normed});
  check_rows(x, weights.weight);
  check_f32("add_rms_norm", hidden, x.shape());
  check_f32("add_rms_norm", normed, x.shape());
  cpu::add_rms_norm(x, weights, hidden, normed, stream.workers());
}

}  // namespace skipper

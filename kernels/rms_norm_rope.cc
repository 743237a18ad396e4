#include "kernels/rms_norm_rope.h"

#include "kernels/operand_checks.h"

namespace skipper {

void rms_norm_rope(Tensor& x, const RmsNormWeights& weights, const Tensor& angles, Stream& stream) {
  check_on_host("rms_norm_rope", {&x, &weights.weight, &angles});
  CHECK_EQ(x.shape().rank(), 3) << "rms_norm_rope: x " << x.shape().to_string();
  CHECK_EQ(x.dim(2) % 2, 0) << "rms_norm_rope: head size " << x.dim(2) << " is odd";
  check_floats("rms_norm_rope", weights.weight);
  CHECK(weights.weight.shape() == Shape({x.dim(2)})) << "rms_norm_rope: weight " << weights.weight.shape().to_string();
  check_f32("rms_norm_rope", x, x.shape());
  check_f32("rms_norm_rope", angles, {x.dim(0), x.dim(2) / 2});
  cpu::rms_norm_rope(x, weights, angles, stream.workers());
}

}  // namespace skipper

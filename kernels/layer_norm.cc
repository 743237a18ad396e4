#include "kernels/layer_norm.h"

#include "kernels/operand_checks.h"

namespace skipper {

void layer_norm(const Tensor& x, const LayerNormWeights& weights, Tensor& y, Stream& stream) {
  const Tensor& weight = weights.weight;
  check_on_host("layer_norm", {&x, &weight, &weights.bias, &y});
  check_floats("layer_norm", weight);
  check_floats("layer_norm", weights.bias);
  CHECK_EQ(weight.shape().rank(), 1) << "layer_norm: weight " << weight.shape().to_string();
  CHECK(weights.bias.shape() == weight.shape()) << "layer_norm: bias " << weights.bias.shape().to_string();
  CHECK_GT(weight.dim(0), 0) << "layer_norm: empty rows";
  CHECK_EQ(x.num_elements() % weight.dim(0), 0) << "layer_norm: x " << x.shape().to_string() << ", weight " << weight.dim(0);
  check_f32("layer_norm", x, x.shape());
  check_f32("layer_norm", y, x.shape());
  cpu::layer_norm(x, weights, y, stream.workers());
}

}  // namespace skipper

#include "kernels/linear.h"

#include "kernels/operand_checks.h"

namespace skipper {

void linear(const Tensor& x, const PackedLinear& weights, Tensor& y, Stream& stream) {
  const PackedMatrix& w = weights.weight;
  check_on_host("linear", {&x, &w.codes, &y});
  CHECK_EQ(x.shape().rank(), 2) << "linear: x " << x.shape().to_string();
  CHECK_EQ(x.dim(1), w.num_columns) << "linear: x " << x.shape().to_string() << " does not fit a weight of " << w.num_rows
                                    << " rows and " << w.num_columns << " columns";
  check_f32("linear", x, x.shape());
  check_f32("linear", y, {x.dim(0), w.num_rows});
  if (weights.bias.defined()) {
    check_on_host("linear", {&weights.bias});
    check_floats("linear", weights.bias);
    CHECK(weights.bias.shape() == Shape({w.num_rows})) << "linear: bias " << weights.bias.shape().to_string();
  }
  cpu::linear(x, weights, y, stream.workers());
}

}  // namespace skipper

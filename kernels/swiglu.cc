#include "kernels/swiglu.h"

#include "kernels/operand_checks.h"

namespace skipper {

void swiglu(const Tensor& gate_up, Tensor& y, Stream& stream) {
  check_on_host("swiglu", {&gate_up, &y});
  CHECK_EQ(y.shape().rank(), 2) << "swiglu: y " << y.shape().to_string();
  check_f32("swiglu", y, y.shape());
  check_f32("swiglu", gate_up, {y.dim(0), 2 * y.dim(1)});
  cpu::swiglu(gate_up, y, stream.workers());
}

}  // namespace skipper

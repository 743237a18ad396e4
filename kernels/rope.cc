#include "kernels/rope.h"

#include "kernels/operand_checks.h"

namespace skipper {

void rope(Tensor& x, const Tensor& angles, Stream& stream) {
  check_on_host("rope", {&x, &angles});
  CHECK_EQ(x.shape().rank(), 3) << "rope: x " << x.shape().to_string();
  CHECK_EQ(x.dim(2) % 2, 0) << "rope: head size " << x.dim(2) << " is odd";
  check_f32("rope", x, x.shape());
  check_f32("rope", angles, {x.dim(0), x.dim(2) / 2});
  cpu::rope(x, angles, stream.workers());
}

}  // namespace skipper

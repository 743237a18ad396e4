#include "kernels/gelu.h"

#include "kernels/operand_checks.h"

namespace skipper {

void gelu(Tensor& x, GeluForm form, Stream& stream) {
  check_on_host("gelu", {&x});
  CHECK_GE(x.shape().rank(), 1) << "gelu: a scalar";
  check_f32("gelu", x, x.shape());
  cpu::gelu(x, form, stream.workers());
}

}  // namespace skipper

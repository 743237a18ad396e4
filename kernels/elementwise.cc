#include "kernels/elementwise.h"

#include "kernels/operand_checks.h"

namespace skipper {

void add(const Tensor& x, Tensor& y, Stream& stream) {
  check_on_host("add", {&x, &y});
  check_floats("add", x);
  CHECK_EQ(x.num_elements(), y.num_elements()) << "add: " << x.shape().to_string() << " to " << y.shape().to_string();
  check_f32("add", y, y.shape());
  cpu::add(x, y, stream.workers());
}

void convert(const Tensor& x, Tensor& y, Stream& stream) {
  check_on_host("convert", {&x, &y});
  CHECK_EQ(x.num_elements(), y.num_elements()) << "convert: " << x.shape().to_string() << " to " << y.shape().to_string();
  const bool from_half = x.dtype() == DType::kF16 && y.dtype() == DType::kF32;
  if (!from_half) {
    check_floats("convert", x);
    check_floats("convert", y);
  }
  cpu::convert(x, y, stream.workers());
}

void transpose(const Tensor& x, Tensor& y, Stream& stream) {
  check_on_host("transpose", {&x, &y});
  const int rank = x.shape().rank();
  CHECK(rank >= 2 && rank == y.shape().rank()) << "transpose: " << x.shape().to_string() << " to " << y.shape().to_string();
  for (int axis = 0; axis < rank; ++axis) {
    const int source = axis < rank - 2 ? axis : 2 * rank - 3 - axis;
    CHECK_EQ(y.dim(axis), x.dim(source)) << "transpose: " << x.shape().to_string() << " to " << y.shape().to_string();
  }
  CHECK(x.dtype() == y.dtype()) << "transpose: " << name_of(x.dtype()) << " to " << name_of(y.dtype());
  CHECK(size_of(x.dtype()) == 2 || size_of(x.dtype()) == 4) << "transpose: element type " << name_of(x.dtype());
  cpu::transpose(x, y, stream.workers());
}

}  // namespace skipper

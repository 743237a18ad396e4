#include "kernels/permute_tokens.h"

#include "kernels/operand_checks.h"

namespace skipper {

void gather_rows(const Tensor& x, const Tensor& row_index, Tensor& y, Stream& stream) {
  check_on_host("gather_rows", {&x, &row_index, &y});
  if (x.dtype() != DType::kU8 || y.dtype() != DType::kU8) {
    check_floats("gather_rows", x);
    check_floats("gather_rows", y);
  }
  check_index("gather_rows", row_index);
  CHECK_EQ(x.shape().rank(), 2) << "gather_rows: x " << x.shape().to_string();
  CHECK(y.shape() == Shape({row_index.dim(0), x.dim(1)})) << "gather_rows: y " << y.shape().to_string();
  cpu::gather_rows(x, row_index, y, stream.workers());
}

void weighted_row_sum(const WeightedSumInput& input, Tensor& y, Stream& stream) {
  check_on_host("weighted_row_sum", {&input.x, &input.row_of_pair, &input.weights, &input.pair_offsets, &y});
  check_index("weighted_row_sum", input.row_of_pair);
  check_index("weighted_row_sum", input.pair_offsets);
  check_floats("weighted_row_sum", y);
  CHECK_EQ(input.x.shape().rank(), 2) << "weighted_row_sum: x " << input.x.shape().to_string();
  check_f32("weighted_row_sum", input.x, input.x.shape());
  check_f32("weighted_row_sum", input.weights, input.row_of_pair.shape());
  CHECK(y.shape() == Shape({input.pair_offsets.dim(0) - 1, input.x.dim(1)})) << "weighted_row_sum: y " << y.shape().to_string();
  cpu::weighted_row_sum(input, y, stream.workers());
}

void row_sum(const RowSumInput& input, Tensor& y, Stream& stream) {
  check_on_host("row_sum", {&input.x, &input.row_index, &input.offsets, &y});
  check_floats("row_sum", input.x);
  check_index("row_sum", input.row_index);
  check_index("row_sum", input.offsets);
  CHECK_EQ(input.x.shape().rank(), 2) << "row_sum: x " << input.x.shape().to_string();
  check_f32("row_sum", y, {input.offsets.dim(0) - 1, input.x.dim(1)});
  cpu::row_sum(input, y, stream.workers());
}

}  // namespace skipper

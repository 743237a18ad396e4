#include "kernels/permute_tokens.h"

#include "kernels/operand_checks.h"

namespace skipper {

void gather_rows(const Tensor& x, const Tensor& row_index, Tensor& y, Stream&) {
  check_on_host("gather_rows", {&x, &row_index, &y});
  check_floats("gather_rows", x);
  check_index("gather_rows", row_index);
  CHECK_EQ(x.shape().rank(), 2) << "gather_rows: x " << x.shape().to_string();
  check_f32("gather_rows", y, {row_index.dim(0), x.dim(1)});
  cpu::gather_rows(x, row_index, y);
}

void weighted_row_sum(const WeightedSumInput& input, Tensor& y, Stream&) {
  check_on_host("weighted_row_sum", {&input.x, &input.row_of_pair, &input.weights, &input.pair_offsets, &y});
  check_index("weighted_row_sum", input.row_of_pair);
  check_index("weighted_row_sum", input.pair_offsets);
  check_floats("weighted_row_sum", y);
  CHECK_EQ(input.x.shape().rank(), 2) << "weighted_row_sum: x " << input.x.shape().to_string();
  check_f32("weighted_row_sum", input.x, input.x.shape());
  check_f32("weighted_row_sum", input.weights, input.row_of_pair.shape());
  CHECK(y.shape() == Shape({input.pair_offsets.dim(0) - 1, input.x.dim(1)})) << "weighted_row_sum: y " << y.shape().to_string();
  cpu::weighted_row_sum(input, y);
}

void scatter_add_rows(const Tensor& x, const Tensor& row_index, Tensor& y, Stream&) {
  check_on_host("scatter_add_rows", {&x, &row_index, &y});
  check_floats("scatter_add_rows", x);
  check_index("scatter_add_rows", row_index);
  CHECK_EQ(y.shape().rank(), 2) << "scatter_add_rows: y " << y.shape().to_string();
  check_f32("scatter_add_rows", y, y.shape());
  CHECK(x.shape() == Shape({row_index.dim(0), y.dim(1)})) << "scatter_add_rows: x " << x.shape().to_string();
  cpu::scatter_add_rows(x, row_index, y);
}

}  // namespace skipper

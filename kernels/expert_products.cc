#include "kernels/expert_products.h"

#include "kernels/operand_checks.h"

namespace skipper {
namespace {

// One matrix of `num_panels` panels and `num_columns` inputs per expert, all offsets within `num_rows`.
struct ExpectedExperts {
  int64_t num_panels;
  int64_t num_columns;
  int64_t num_rows;
};

void check_experts(std::string_view kernel, std::span<const PackedMatrix> experts, const Tensor& row_offsets,
                   const ExpectedExperts& expected) {
  check_on_host(kernel, {&row_offsets});
  check_index(kernel, row_offsets);
  CHECK_EQ(row_offsets.dim(0), static_cast<int64_t>(experts.size()) + 1) << kernel << ": one offset more than experts";
  const int32_t* offsets = row_offsets.data<int32_t>();
  CHECK_GE(offsets[0], 0) << kernel;
  CHECK_LE(offsets[experts.size()], expected.num_rows) << kernel << ": offsets reach beyond the rows";
  for (size_t e = 0; e < experts.size(); ++e) {
    CHECK_LE(offsets[e], offsets[e + 1]) << kernel << ": offsets of expert " << e << " descend";
    if (offsets[e] == offsets[e + 1]) continue;  // perhaps not loaded
    check_on_host(kernel, {&experts[e].codes});
    CHECK_EQ(experts[e].num_panels(), expected.num_panels) << kernel << ": panels of expert " << e;
    CHECK_EQ(experts[e].num_columns, expected.num_columns) << kernel << ": inputs of expert " << e;
  }
}

int64_t panels_of(int64_t num_rows) { return (num_rows + kPanelRows - 1) / kPanelRows; }

}  // namespace

void expert_gate_up(const ExpertRows& rows, std::span<const PackedMatrix> gate_up, Tensor& activated, Stream& stream) {
  check_on_host("expert_gate_up", {&rows.tokens, &rows.row_index, &activated});
  check_floats("expert_gate_up", rows.tokens);
  check_index("expert_gate_up", rows.row_index);
  CHECK_EQ(rows.tokens.shape().rank(), 2) << "expert_gate_up: tokens " << rows.tokens.shape().to_string();
  CHECK_EQ(activated.shape().rank(), 2) << "expert_gate_up: activated " << activated.shape().to_string();
  const int64_t num_rows = rows.row_index.dim(0), intermediate_size = activated.dim(1);
  check_f32("expert_gate_up", activated, {num_rows, intermediate_size});
  check_experts("expert_gate_up", gate_up, rows.row_offsets, {2 * panels_of(intermediate_size), rows.tokens.dim(1), num_rows});
  cpu::expert_gate_up(rows, gate_up, activated, stream.workers());
}

void expert_down(const ExpertDownInput& input, std::span<const PackedMatrix> down, Tensor& y, Stream& stream) {
  check_on_host("expert_down", {&input.activated, &y});
  CHECK_EQ(input.activated.shape().rank(), 2) << "expert_down: activated " << input.activated.shape().to_string();
  CHECK_EQ(y.shape().rank(), 2) << "expert_down: y " << y.shape().to_string();
  const int64_t num_rows = input.activated.dim(0), hidden_size = y.dim(1);
  check_f32("expert_down", input.activated, input.activated.shape());
  check_f32("expert_down", y, {num_rows, hidden_size});
  check_experts("expert_down", down, input.row_offsets, {panels_of(hidden_size), input.activated.dim(1), num_rows});
  cpu::expert_down(input, down, y, stream.workers());
}

}  // namespace skipper

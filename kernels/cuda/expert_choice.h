// What lies between attention and experts, for one or two rows in one kernel: residual sum, norm, router, choices, sorting.
#pragma once

#include <cstdint>

#include "kernels/cuda/decoder_rows.h"
#include "kernels/cuda/expert_rows.h"
#include "kernels/cuda/routing.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

struct ExpertChoiceInput {
  const Tensor& delta;      // [T, H] f32
  const NormWeights& norm;
  const Tensor& router;     // [E, H] f32
  const RouteInput& route;  // its logits are not read
};
struct ExpertChoiceOutput {
  Tensor& hidden;  // [T, H] f32: += delta
  const RouteOutput& route;
  const SortedExperts& sorted;  // of experts that are all here, so that an expert's slot is its id
  Tensor& sorted_rows;          // [R, H] bf16
};

struct ExpertChoiceShape {
  int64_t num_tokens = 0;
  int64_t hidden_size = 0;
  int64_t num_experts = 0;
};
// Whether rows, and the router beside them, fit into the shared memory of eight SMs.
bool can_choose_experts(const ExpertChoiceShape& shape);

// add_rms_norm(), router_logits(), route_tokens() and sort_and_gather() in one launch, to the same bits; normed rows and logits
// stay on the chip. Only where can_choose_experts().
void choose_experts(const ExpertChoiceInput& input, const ExpertChoiceOutput& output, Stream& stream);

}  // namespace skipper::cuda

// Attention over the paged cache on a GPU in the shape of Qwen3-30B-A3B: prompts, and decode steps at two contexts.
#pragma once

#include "bench/gpu_kernel_case.h"
#include "tensor/device_runtime.h"

namespace skipper::cuda {

void visit_attention_cases(const CaseFilter& filter, const CaseVisitor& visit, Stream& stream);

}  // namespace skipper::cuda

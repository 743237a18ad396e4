// Sampling on a GPU in the vocabulary of Qwen3, for gpu_kernel_perf.
#pragma once

#include "bench/gpu_kernel_case.h"
#include "tensor/device_runtime.h"

namespace skipper::cuda {

void visit_sampling_cases(const CaseFilter& filter, const CaseVisitor& visit, Stream& stream);

}  // namespace skipper::cuda

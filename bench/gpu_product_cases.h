// Products with weights on a GPU in the shapes of Qwen3-30B-A3B: dense layers, and experts that tokens choose at random.
#pragma once

#include <vector>

#include "bench/gpu_kernel_case.h"
#include "kernels/weight_format.h"
#include "tensor/device_runtime.h"

namespace skipper::cuda {

// Library products have the same weights in BF16, also beside integer formats.
void visit_dense_cases(const std::vector<WeightFormat>& formats, const CaseFilter& filter, const CaseVisitor& visit,
                       Stream& stream);
// Gate and up with SwiGLU, which the library's product is without, then down.
void visit_expert_cases(const std::vector<WeightFormat>& formats, const CaseFilter& filter, const CaseVisitor& visit,
                        Stream& stream);

// Operations per second of the library's 8192 × 8192 × 8192 product in BF16: the ceiling of all others.
double peak_operations_per_second(Stream& stream);

}  // namespace skipper::cuda

// What a layer does to rows between its products on a GPU: router, routing, sort, sums, norms, heads.
#pragma once

#include "bench/gpu_kernel_case.h"
#include "tensor/device_runtime.h"

namespace skipper::cuda {

void visit_row_cases(const CaseFilter& filter, const CaseVisitor& visit, Stream& stream);

}  // namespace skipper::cuda

// Rows of experts that the host computes: out to its memory, and their results back among those of the GPU's own experts.
#pragma once

#include <cstdint>

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// Sorted rows (kernels/cuda/expert_rows.h) and whose of them go to the host. Collected one expert after the other, they are
// numbered from 0.
struct HostExpertRows {
  const Tensor& row_offsets;  // [E + 1] i32
  const Tensor& experts;      // [N] i32, ascending, at most 1024
};

struct CollectedRows {
  Tensor& offsets;  // [N + 1] i32, page-locked: rows of these experts, ascending from 0; the last is the number of all
  Tensor& rows;     // [C, H] bf16, page-locked: the rows first .. first + C − 1, as far as there are any
};
// sorted_rows [R, H] bf16, H a multiple of 8. The host may read what was collected when the stream has come by.
void collect_host_rows(const HostExpertRows& from, const Tensor& sorted_rows, int64_t first, const CollectedRows& to,
                       Stream& stream);

// sorted_results[place of row first + i] = results[i] of each row i of `results`.
// results [n, H] f32, page-locked · sorted_results [R, H] f32 or bf16
void return_host_rows(const HostExpertRows& to, const Tensor& results, int64_t first, Tensor& sorted_results, Stream& stream);

}  // namespace skipper::cuda

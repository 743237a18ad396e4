// One matrix product per expert over rows sorted by expert.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// y[r] = x[r] · w[e]ᵀ for the rows r in [row_offsets[e], row_offsets[e + 1]) of expert e. A row's bits do not depend on how
// many rows its expert has. Offsets stay on the device: no host reads them.
// x [R, K] f32 · w [E, N, K] bf16 or f32 · row_offsets [E + 1] i32, row_offsets[E] <= R · y [R, N] f32
void grouped_gemm(const Tensor& x, const Tensor& w, const Tensor& row_offsets, Tensor& y, Stream& stream);

namespace cpu {
void grouped_gemm(const Tensor& x, const Tensor& w, const Tensor& row_offsets, Tensor& y);
}

}  // namespace skipper

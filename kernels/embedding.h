// Token ids to rows of the embedding table.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// y[t] = table[ids[t]]. ids [T] i32, each in [0, V) · table [V, H] bf16 or f32 · y [T, H] f32
void embedding(const Tensor& ids, const Tensor& table, Tensor& y, Stream& stream);

namespace cpu {
void embedding(const Tensor& ids, const Tensor& table, Tensor& y, ThreadPool& workers);
}

}  // namespace skipper

// Additions and conversions of whole tensors.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// y += x. x bf16 or f32, y f32, same number of elements.
void add(const Tensor& x, Tensor& y, Stream& stream);

// y = x in y's element type (bf16 ↔ f32, f16 → f32), rounding to nearest even.
void convert(const Tensor& x, Tensor& y, Stream& stream);

// y = xᵀ over the last two axes. x [..., A, B] · y [..., B, A], same 2-byte or 4-byte element type.
void transpose(const Tensor& x, Tensor& y, Stream& stream);

namespace cpu {
void add(const Tensor& x, Tensor& y, ThreadPool& workers);
void convert(const Tensor& x, Tensor& y, ThreadPool& workers = ThreadPool::caller_only());
void transpose(const Tensor& x, Tensor& y, ThreadPool& workers = ThreadPool::caller_only());
}  // namespace cpu

}  // namespace skipper

// The gated activation of SwiGLU feed-forward blocks (Shazeer 2020).
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// y = silu(gate) · up, where gate_up holds gate in its first half and up in its second.
// gate_up [R, 2·I] f32 · y [R, I] f32
void swiglu(const Tensor& gate_up, Tensor& y, Stream& stream);

namespace cpu {
void swiglu(const Tensor& gate_up, Tensor& y, ThreadPool& workers);
}

}  // namespace skipper

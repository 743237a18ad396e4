// Gaussian error linear unit (Hendrycks and Gimpel 2016), exact and tanh-approximated.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

enum class GeluForm : uint8_t { kErf, kTanh };

// In place. x [..., N] f32
void gelu(Tensor& x, GeluForm form, Stream& stream);

namespace cpu {
void gelu(Tensor& x, GeluForm form, ThreadPool& workers);
}

}  // namespace skipper

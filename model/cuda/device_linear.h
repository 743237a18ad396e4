// Dense weights of a loaded model on their way to a GPU: matrices in its layout, small tensors in FP32.
#pragma once

#include <span>

#include "kernels/cuda/device_matrix.h"
#include "kernels/linear.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

struct DeviceLinear {
  DeviceMatrices weight;  // one matrix [N, K]
  Tensor bias;            // [N] f32, or undefined: what reads the product adds it
};

// Weights in f32 rounded to BF16, as which they are multiplied; others as they are.
PackedMatrix as_multiplied(const PackedMatrix& packed);

// The parts' rows one below the other as one matrix, so that one product gives all their outputs side by side: queries, keys
// and values. All parts have K inputs, one format, and either all a bias or none. Blocks until the copy is done.
// Throws InvalidRequest when formats differ, when a part but the last is no multiple of 16 rows, as device_matrix_bytes() does.
DeviceLinear upload_linear(std::span<const PackedLinear> parts, Stream& stream);

// A copy of a host tensor on the stream's device, complete when it returns; as it is, or turned from bf16 or f32 to f32.
Tensor upload(const Tensor& host, Stream& stream);
Tensor upload_f32(const Tensor& values, Stream& stream);

}  // namespace skipper::cuda

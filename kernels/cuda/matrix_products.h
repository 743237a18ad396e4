// Products of rows of activations with weights on a GPU's tensor cores: dense, or grouped by expert.
#pragma once

#include "kernels/cuda/device_matrix.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// A row's bits depend neither on the number of rows, nor on the rows and experts beside it, nor on the launch: every output is
// one serial FP32 sum over K in steps of 16 by one kind of instruction (wgmma m64nNk16). Weights are multiplied as BF16; integer
// ones are scale · code rounded to BF16.
//
// x [>= T, K] bf16, rows 16-byte aligned, K a multiple of 8 (a view of the first T rows of a larger buffer).

// y = x · wᵀ of matrix 0. y [T, N] f32 or bf16. T = y.dim(0), also 0.
void linear(const Tensor& x, const DeviceMatrices& w, Tensor& y, Stream& stream);

// Rows sorted by expert: rows row_offsets[e] .. row_offsets[e + 1] meet matrix e. The counts are read on the GPU.
struct SortedRows {
  const Tensor& x;            // [R, K] bf16, rows beyond row_offsets[E] are not used
  const Tensor& row_offsets;  // [E + 1] i32 on the GPU, ascending from 0, at most R
  // Rows that can be expected of one expert: chooses the tile, never a bit of the result. At least 1.
  int64_t expected_rows = 1;
};

// Rows of a matrix of MatrixPlace::kAbsent are neither read nor written.
//
// activated[r] = silu(gate · x[r]) ⊙ (up · x[r]); w as pack_device_gate_up makes it. activated [R, I] bf16
void expert_gate_up(const SortedRows& rows, const DeviceMatrices& w, Tensor& activated, Stream& stream);
// y[r] = w · x[r]. y [R, N] f32 or bf16. The offsets are read before the kernel before this one has ended: they must come from
// one that was queued earlier, and between the two there must be an expert_gate_up().
void expert_down(const SortedRows& rows, const DeviceMatrices& w, Tensor& y, Stream& stream);

}  // namespace skipper::cuda

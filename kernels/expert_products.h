// The two products of all local experts of a layer, over rows sorted by expert; each expert has its own weight format.
#pragma once

#include <span>

#include "kernels/packed_matrix.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// Row r belongs to the expert e with row_offsets[e] <= r < row_offsets[e + 1] and reads token row_index[r].
struct ExpertRows {
  const Tensor& tokens;       // [T, H] bf16 or f32
  const Tensor& row_index;    // [R] i32, each in [0, T)
  const Tensor& row_offsets;  // [E + 1] i32, ascending from 0 to R
};

// activated[r] = silu(gate_e · x) ⊙ (up_e · x), x = tokens[row_index[r]].
// gate_up[e]: gate and up [I, H] each, their panels in turn (gate 0, up 0, gate 1, ...), 2 · ceil(I / 16) panels in all.
// activated [R, I] f32
void expert_gate_up(const ExpertRows& rows, std::span<const PackedMatrix> gate_up, Tensor& activated, Stream& stream);

// y[r] = down_e · activated[r]. down[e] [H, I] · y [R, H] f32
struct ExpertDownInput {
  const Tensor& activated;    // [R, I] f32
  const Tensor& row_offsets;  // [E + 1] i32
};
void expert_down(const ExpertDownInput& input, std::span<const PackedMatrix> down, Tensor& y, Stream& stream);

// A row's bits depend neither on the number of rows, nor on the experts beside it, nor on the threads. An expert without rows
// is not touched.
namespace cpu {
void expert_gate_up(const ExpertRows& rows, std::span<const PackedMatrix> gate_up, Tensor& activated, ThreadPool& workers);
void expert_down(const ExpertDownInput& input, std::span<const PackedMatrix> down, Tensor& y, ThreadPool& workers);
}  // namespace cpu

}  // namespace skipper

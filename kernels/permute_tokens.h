// Moves rows between token order and expert order: gather on the way in, sums on the way out.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// y[r] = x[row_index[r]] in y's element type, rounding to nearest even.
// x [T, H] bf16 or f32 · row_index [R] i32 · y [R, H] bf16 or f32; or x and y both u8, copied
void gather_rows(const Tensor& x, const Tensor& row_index, Tensor& y, Stream& stream);

// y[t] = Σ_p weights[p] · x[row_of_pair[p]] over the pairs p in [pair_offsets[t], pair_offsets[t + 1]), added in that order;
// a token without pairs becomes exactly 0. Rounded to y's element type at the end.
struct WeightedSumInput {
  const Tensor& x;             // [R, H] f32
  const Tensor& row_of_pair;   // [P] i32
  const Tensor& weights;       // [P] f32
  const Tensor& pair_offsets;  // [T + 1] i32
};
void weighted_row_sum(const WeightedSumInput& input, Tensor& y, Stream& stream);  // y [T, H] bf16 or f32

// y[t] = 0 + Σ_i x[row_index[i]] over the i in [offsets[t], offsets[t + 1]), added in that order.
struct RowSumInput {
  const Tensor& x;          // [R, H] bf16 or f32
  const Tensor& row_index;  // [I] i32
  const Tensor& offsets;    // [T + 1] i32
};
void row_sum(const RowSumInput& input, Tensor& y, Stream& stream);  // y [T, H] f32

namespace cpu {
void gather_rows(const Tensor& x, const Tensor& row_index, Tensor& y, ThreadPool& workers);
void weighted_row_sum(const WeightedSumInput& input, Tensor& y, ThreadPool& workers);
void row_sum(const RowSumInput& input, Tensor& y, ThreadPool& workers);
}  // namespace cpu

}  // namespace skipper

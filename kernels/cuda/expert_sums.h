// Brings the outputs of experts back to their tokens on a GPU: weighted sums of pairs, and of what other ranks returned.
#pragma once

#include "kernels/cuda/decoder_rows.h"
#include "kernels/cuda/expert_rows.h"

namespace skipper::cuda {

// What is summed for each arrived row: weights[row][j] · y[row_of_pair[row][j]] over its pairs in slot order, in FP32.
struct PairTerms {
  const ArrivedRows& arrived;
  const Tensor& row_of_pair;  // [S · capacity, k] i32, as sort_by_expert() left it
  const Tensor& weights;      // [S · capacity, k] f32
  const Tensor& y;            // [R, H] f32 or bf16
  // kBF16: sums in FP32 get the bits that they would have if they came back from another rank in BF16.
  DType travels_as = DType::kF32;
};

// out[row] = the sum of its terms, exactly 0 without any; rounded to out's type. out [S · capacity, H] f32 or bf16
void weighted_pair_sums(const PairTerms& terms, Tensor& out, Stream& stream);

// add_rms_norm() of these sums in one kernel, to the same bits: hidden += sums, then the norm. One source, all of whose rows have
// arrived. hidden [capacity, H] f32
void add_pair_sums_rms_norm(const PairTerms& terms, const NormWeights& weights, Tensor& hidden, NormedRows& out, Stream& stream);

// out[t] = Σ_d returned[d · capacity + row_slot[t][d]] in rank order, exactly 0 without any.
// returned [world · capacity, H] f32 or bf16 · row_slot as plan_outgoing() left it · out [T, H] f32, overwritten
void add_returned(const Tensor& returned, const Tensor& row_slot, int64_t capacity, Tensor& out, Stream& stream);

}  // namespace skipper::cuda

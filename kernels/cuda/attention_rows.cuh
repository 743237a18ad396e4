// The arithmetic of one row of attention, a query of one head: the same operations in the same order whoever asks.
//
// Softmax is computed as tiles of keys come (Milakov and Gimelshein 2018; Dao et al. 2022), afresh in each split of positions;
// splits are then folded in ascending order. A thread has two rows of a warpgroup's 64 (kernels/cuda/wgmma.cuh), of which four
// neighbouring lanes hold different columns. Every operation is named, so that no two places round differently, and keys that a
// row does not see change nothing of it: their weights are exactly 0, and factors exactly 1.
#pragma once

#include <cstdint>

#include "kernels/cuda/row_vectors.cuh"

namespace skipper::cuda {

__device__ __forceinline__ float power_of_two(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// Where no key was seen the highest score is −∞, and differences to it are taken to 0 instead.
__device__ __forceinline__ float reference_of(float highest) { return highest == -INFINITY ? 0.0f : highest; }

// Scores in the unit in which they come from the products; `scale` makes them exponents of 2.
__device__ __forceinline__ float factor_between(float score, float reference, float scale) {
  return power_of_two(__fmul_rn(__fadd_rn(score, -reference), scale));
}

// What keys have given to a thread's two rows so far.
template <int kColumns>
struct RowSums {
  float out[kColumns / 2];  // weighted values, relative to the highest score; in the order of wgmma
  float highest[2] = {-INFINITY, -INFINITY};
  float total[2] = {0.0f, 0.0f};  // of the weights, in a split of this lane's columns alone

  __device__ __forceinline__ void restart() {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      highest[row] = -INFINITY;
      total[row] = 0.0f;
    }
  }
};

// Element of wgmma's sums: `i` counts the values of one of the thread's rows.
__device__ __forceinline__ constexpr int sum_index(int row, int i) { return 4 * (i / 2) + 2 * row + i % 2; }

// Hides keys that a row does not see: those from visible[row] on, counted from the tile's first.
__device__ __forceinline__ void mask_scores(const int (&visible)[2], float (&scores)[32]) {
  const int first_column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int row = 0; row < 2; ++row) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (i / 2 * 8 + first_column + i % 2 >= visible[row]) scores[sum_index(row, i)] = -INFINITY;
    }
  }
}

// Scores become weights relative to the highest so far. Returns in `correction` what earlier sums are to be multiplied with.
template <int kColumns>
__device__ __forceinline__ void weigh_scores(float scale, float (&scores)[32], RowSums<kColumns>& sums, float (&correction)[2]) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    float highest = sums.highest[row];
#pragma unroll
    for (int i = 0; i < 16; ++i) highest = fmaxf(highest, scores[sum_index(row, i)]);
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
    const float reference = reference_of(highest);
    correction[row] = factor_between(sums.highest[row], reference, scale);
    sums.highest[row] = highest;

    const float offset = -__fmul_rn(reference, scale);
    float even = 0.0f, odd = 0.0f;
#pragma unroll
    for (int i = 0; i < 16; i += 2) {
      float &first = scores[sum_index(row, i)], &second = scores[sum_index(row, i + 1)];
      first = power_of_two(__fmaf_rn(first, scale, offset));
      second = power_of_two(__fmaf_rn(second, scale, offset));
      even = __fadd_rn(even, first);
      odd = __fadd_rn(odd, second);
    }
    sums.total[row] = __fmaf_rn(sums.total[row], correction[row], __fadd_rn(even, odd));
  }
}

// Weights rounded to BF16 as the operand A of their product with the values.
__device__ __forceinline__ void round_weights(const float (&scores)[32], uint32_t (&weights)[4][4]) {
#pragma unroll
  for (int step = 0; step < 4; ++step) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      weights[step][part] = bf16_pair(scores[8 * step + 2 * part], scores[8 * step + 2 * part + 1]);
    }
  }
}

template <int kColumns>
__device__ __forceinline__ void correct_sums(const float (&correction)[2], RowSums<kColumns>& sums) {
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) sums.out[i] = __fmul_rn(sums.out[i], correction[i / 2 % 2]);
}

// How two partial sums of one row are added: each is multiplied with its factor. Empty ones count for exactly nothing.
struct FoldFactors {
  float kept, added;

  __device__ __forceinline__ float fold(float sum, float other) const { return __fmaf_rn(sum, kept, __fmul_rn(other, added)); }
};
// `highest` becomes that of both.
__device__ __forceinline__ FoldFactors fold_factors(float& highest, float other, float scale) {
  const float before = highest;
  highest = fmaxf(before, other);
  const float reference = reference_of(highest);
  return {factor_between(before, reference, scale), factor_between(other, reference, scale)};
}

// The total of a split over all columns.
__device__ __forceinline__ float total_of_row(float total_of_lane) { return group_sum(total_of_lane, 4); }

template <int kColumns>
__device__ __forceinline__ void fold_split(const RowSums<kColumns>& split, float scale, RowSums<kColumns>& sums) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const FoldFactors factors = fold_factors(sums.highest[row], split.highest[row], scale);
    sums.total[row] = factors.fold(sums.total[row], total_of_row(split.total[row]));
#pragma unroll
    for (int i = 0; i < kColumns / 4; ++i) {
      float& sum = sums.out[sum_index(row, i)];
      sum = factors.fold(sum, split.out[sum_index(row, i)]);
    }
  }
}

// Two neighbouring elements of the result.
__device__ __forceinline__ uint32_t attended_pair(float first, float second, float total) {
  const float inverse = __frcp_rn(total);
  return bf16_pair(__fmul_rn(first, inverse), __fmul_rn(second, inverse));
}

}  // namespace skipper::cuda

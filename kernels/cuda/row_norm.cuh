// RMS norm of rows that lie in registers, shared by the kernels that end in one: all give a row the same bits.
#pragma once

#include <glog/logging.h>

#include <type_traits>

#include "kernels/cuda/decoder_rows.h"
#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/row_vectors.cuh"

namespace skipper::cuda {

struct NormArguments {
  const float* x;
  float* sum;           // null, or receives the rows that are normed; may be x
  const float* weight;  // [H]
  float* f32;           // null: not wanted
  __nv_bfloat16* bf16;
  int num_vectors;  // H / 4
  float epsilon;

  // What a row is multiplied with, besides the weight.
  __device__ __forceinline__ float scale_of(float sum_of_squares) const {
    return 1.0f / sqrtf(sum_of_squares / static_cast<float>(4 * num_vectors) + epsilon);
  }
  // The row that begins at this element; by the first of a row's threads.
  __device__ __forceinline__ void prefetch_row(int64_t row, int thread) const {
    constexpr int kFoursPerLine = 8;
    const int i = kFoursPerLine * thread;
    if (i < num_vectors) prefetch_to_l2(x + row + 4 * i);
  }
  // Of a model, so it may be read before earlier kernels have ended.
  template <int kVectors>
  __device__ __forceinline__ void load_weight(Four (&into)[kVectors]) const {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int i = v * kRowThreads + threadIdx.x;
      if (i < num_vectors) into[v] = load_four(weight, i);
    }
  }
};

// A row's elements stay in registers between the sum and the scaling: four v · kRowThreads + threadIdx.x in x[v] of each of
// kRowThreads threads, zeros beyond the end. `row`: its first element.
template <int kVectors>
__device__ __forceinline__ void store_norm(const NormArguments& arguments, int64_t row, const Four (&x)[kVectors],
                                           const Four (&weight)[kVectors], float (&partial)[kRowThreads / 32]) {
  float squares = 0.0f;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) squares += sum_of_squares(x[v]);
  squares = block_sum<kRowThreads>(squares, partial);
  const float scale = arguments.scale_of(squares);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int i = v * kRowThreads + threadIdx.x;
    if (i >= arguments.num_vectors) continue;
    const Four normed = x[v] * scale * weight[v];
    if (arguments.sum != nullptr) store_four(x[v], arguments.sum + row, i);
    if (arguments.f32 != nullptr) store_four(normed, arguments.f32 + row, i);
    store_four(normed, arguments.bf16 + row, i);
  }
}

inline NormArguments check_norm(const Tensor& hidden, const NormWeights& weights, NormedRows& out) {
  constexpr std::string_view kName = "rms_norm";
  check_rank(kName, hidden, 2);
  check_operand(kName, hidden, DType::kF32, hidden.shape());
  check_operand(kName, weights.weight, DType::kF32, {hidden.dim(1)});
  check_operand(kName, out.bf16, DType::kBF16, hidden.shape());
  if (out.f32.defined()) check_operand(kName, out.f32, DType::kF32, hidden.shape());
  CHECK_GT(hidden.dim(1), 0) << "rms_norm: empty rows";
  CHECK_EQ(hidden.dim(1) % 4, 0) << "rms_norm: rows of " << hidden.dim(1) << " are not whole vectors of four";
  NormArguments arguments{};
  arguments.x = hidden.data<float>();
  arguments.weight = weights.weight.data<float>();
  arguments.f32 = out.f32.defined() ? out.f32.data<float>() : nullptr;
  arguments.bf16 = reinterpret_cast<__nv_bfloat16*>(out.bf16.bytes());
  arguments.num_vectors = static_cast<int>(hidden.dim(1) / 4);
  arguments.epsilon = weights.epsilon;
  return arguments;
}

// Calls launch_with(std::integral_constant) with kVectors for rows of `num_vectors` fours.
template <typename LaunchWith>
void with_vectors_per_thread(int num_vectors, const LaunchWith& launch_with) {
  const int vectors_per_thread = (num_vectors + kRowThreads - 1) / kRowThreads;
  if (vectors_per_thread <= 1) return launch_with(std::integral_constant<int, 1>());
  if (vectors_per_thread <= 2) return launch_with(std::integral_constant<int, 2>());
  if (vectors_per_thread <= 4) return launch_with(std::integral_constant<int, 4>());
  CHECK_LE(vectors_per_thread, 8) << "rms_norm: rows of " << 4 * num_vectors;
  launch_with(std::integral_constant<int, 8>());
}

}  // namespace skipper::cuda

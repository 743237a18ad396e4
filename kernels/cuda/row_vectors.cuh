// What kernels over rows share: four elements at a time, conversions to BF16 and back, sums over a block of threads.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/launch.cuh"

namespace skipper::cuda {

inline constexpr int kRowThreads = 256;

// One block per row of `num_vectors` fours or other words, no more threads than there is work in a row.
inline LaunchShape row_per_block(int64_t num_rows, int64_t num_vectors) {
  const int64_t threads = std::clamp<int64_t>((num_vectors + 31) / 32 * 32, 32, kRowThreads);
  return {dim3(static_cast<unsigned>(num_rows)), dim3(static_cast<unsigned>(threads))};
}

// Four elements in registers, whatever they are in memory.
struct Four {
  float x = 0.0f, y = 0.0f, z = 0.0f, w = 0.0f;
};

__device__ __forceinline__ Four operator+(const Four& a, const Four& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}
__device__ __forceinline__ Four operator-(const Four& a, float b) { return {a.x - b, a.y - b, a.z - b, a.w - b}; }
__device__ __forceinline__ Four operator*(const Four& a, const Four& b) {
  return {a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w};
}
__device__ __forceinline__ Four operator*(const Four& a, float s) { return {a.x * s, a.y * s, a.z * s, a.w * s}; }
__device__ __forceinline__ float sum_of(const Four& a) { return (a.x + a.y) + (a.z + a.w); }
// Operation by operation, so that all kernels that norm a row round alike.
__device__ __forceinline__ float sum_of_squares(const Four& a) {
  return __fadd_rn(__fmaf_rn(a.y, a.y, __fmul_rn(a.x, a.x)), __fmaf_rn(a.w, a.w, __fmul_rn(a.z, a.z)));
}

// `vector` counts fours of the row.
__device__ __forceinline__ Four load_four(const float* row, int64_t vector) {
  const float4 v = reinterpret_cast<const float4*>(row)[vector];
  return {v.x, v.y, v.z, v.w};
}
__device__ __forceinline__ Four load_four(const __nv_bfloat16* row, int64_t vector) {
  const uint2 v = reinterpret_cast<const uint2*>(row)[vector];
  return {__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u), __uint_as_float(v.y << 16),
          __uint_as_float(v.y & 0xffff0000u)};
}

// Two floats rounded to nearest even, `low` in the lower half.
__device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

__device__ __forceinline__ void store_four(const Four& v, float* row, int64_t vector) {
  reinterpret_cast<float4*>(row)[vector] = make_float4(v.x, v.y, v.z, v.w);
}
__device__ __forceinline__ void store_four(const Four& v, __nv_bfloat16* row, int64_t vector) {
  reinterpret_cast<uint2*>(row)[vector] = make_uint2(bf16_pair(v.x, v.y), bf16_pair(v.z, v.w));
}

// Over groups of `lanes` neighbours of a warp, a power of two; every lane gets the sum, by the same tree.
__device__ __forceinline__ float group_sum(float value, int lanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// Over kThreads neighbours of a block, all of whose threads call; every thread gets the same bits. Each call and each group of
// neighbours needs a `partial` of its own.
template <int kThreads>
__device__ __forceinline__ float block_sum(float value, float (&partial)[kThreads / 32]) {
  const float of_warp = group_sum(value, 32);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x % kThreads / 32] = of_warp;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += partial[warp];
  return sum;
}

}  // namespace skipper::cuda

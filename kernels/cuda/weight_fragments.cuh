// From a chunk of packed weights in shared memory to the A registers of wgmma: kernels/cuda/device_matrix.h has the layout.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/weight_format.h"

namespace skipper::cuda {

inline constexpr int kChunkSteps = 4;  // of 16 inputs
inline constexpr int kWarpgroupThreads = 128;

// The weights of one thread for one chunk: four registers of two BF16 for each step.
struct WeightFragments {
  uint32_t registers[kChunkSteps][4];
};

// The compiler does not see that wgmma goes on reading its registers: this keeps their values in place up to here, and has them
// there before what follows.
__device__ __forceinline__ void pin(WeightFragments& fragments) {
#pragma unroll
  for (int step = 0; step < kChunkSteps; ++step) {
#pragma unroll
    for (int r = 0; r < 4; ++r) asm volatile("" : "+r"(fragments.registers[step][r])::"memory");
  }
}

__device__ __forceinline__ void keep(const WeightFragments& fragments) {
#pragma unroll
  for (int step = 0; step < kChunkSteps; ++step) {
#pragma unroll
    for (int r = 0; r < 4; ++r) asm volatile("" ::"r"(fragments.registers[step][r]) : "memory");
  }
}

__device__ __forceinline__ void copy(const WeightFragments& from, WeightFragments& to) {
#pragma unroll
  for (int step = 0; step < kChunkSteps; ++step) {
#pragma unroll
    for (int r = 0; r < 4; ++r) asm volatile("mov.b32 %0, %1;" : "=r"(to.registers[step][r]) : "r"(from.registers[step][r]));
  }
}

// What a kernel knows of one matrix.
struct MatrixEntry {
  const uint8_t* memory;
  WeightKind kind;
  int group_size;

  __device__ int chunk_bytes() const {
    const int scales = group_size == 32 ? 256 : 128;
    switch (kind) {
      case WeightKind::kInt8: return 4096 + scales;
      case WeightKind::kInt4: return 2048 + scales;
      default: return 8192;
    }
  }
};

__device__ __forceinline__ uint32_t bits_of(__nv_bfloat162 pair) { return *reinterpret_cast<const uint32_t*>(&pair); }
__device__ __forceinline__ __nv_bfloat162 pair_of(uint32_t bits) { return *reinterpret_cast<const __nv_bfloat162*>(&bits); }

// The scales of the thread's two rows for one group of the chunk.
struct RowScales {
  __nv_bfloat162 first, second;

  __device__ __forceinline__ RowScales(const uint8_t* scales, int group, int row) {
    const auto* values = reinterpret_cast<const __nv_bfloat16*>(scales) + group * 64;
    first = __bfloat162bfloat162(values[row]);
    second = __bfloat162bfloat162(values[row + 8]);
  }
  // Registers 0 and 2 of a step are the first row, 1 and 3 the second.
  __device__ __forceinline__ __nv_bfloat162 of_register(int index) const { return index % 2 == 0 ? first : second; }
};

// Row of the tile that the thread's even registers hold; the odd ones hold row + 8.
__device__ __forceinline__ int first_row(int thread) { return thread / 32 * 16 + thread % 32 / 4; }

template <WeightKind kind>
__device__ __forceinline__ void load_fragments(const uint8_t* chunk, int thread, int group_size, WeightFragments& out);

template <>
__device__ __forceinline__ void load_fragments<WeightKind::kBF16>(const uint8_t* chunk, int thread, int, WeightFragments& out) {
#pragma unroll
  for (int step = 0; step < kChunkSteps; ++step) {
    const uint4 words = *reinterpret_cast<const uint4*>(chunk + (step * kWarpgroupThreads + thread) * 16);
    out.registers[step][0] = words.x;
    out.registers[step][1] = words.y;
    out.registers[step][2] = words.z;
    out.registers[step][3] = words.w;
  }
}

// Two unsigned codes, bytes `pair` and `pair` + 1 of a word, to BF16 integers code − 128; exact.
__device__ __forceinline__ __nv_bfloat162 pair_of_bytes(uint32_t word, int pair) {
  constexpr uint32_t kTwoTo23 = 0x4b000000;
  constexpr float kBias = 8388608.0f + 128.0f;
  const float low = __uint_as_float(__byte_perm(word, kTwoTo23, 0x7440 + pair)) - kBias;
  const float high = __uint_as_float(__byte_perm(word, kTwoTo23, 0x7440 + pair + 1)) - kBias;
  return __floats2bfloat162_rn(low, high);
}

template <>
__device__ __forceinline__ void load_fragments<WeightKind::kInt8>(const uint8_t* chunk, int thread, int group_size,
                                                                  WeightFragments& out) {
  const uint8_t* scales = chunk + 4096;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint4 words = *reinterpret_cast<const uint4*>(chunk + (half * kWarpgroupThreads + thread) * 16);
    const uint32_t codes[4] = {words.x, words.y, words.z, words.w};
    const RowScales scale(scales, group_size == 32 ? half : 0, first_row(thread));
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      const __nv_bfloat162 integers = pair_of_bytes(codes[r / 2], r % 2 * 2);
      out.registers[2 * half + r / 4][r % 4] = bits_of(__hmul2(integers, scale.of_register(r)));
    }
  }
}

// The lowest nibble of both halves of a word as BF16, 128 + code: a nibble in the low mantissa bits of 128 is exactly that. One
// instruction, which takes only one of its constants as an immediate.
__device__ __forceinline__ __nv_bfloat162 pair_of_nibbles(uint32_t word) {
  constexpr uint32_t kNibbles = 0x000f000f, k128 = 0x43004300;
  constexpr int kAndOr = (0xf0 & 0xcc) | 0xaa;
  uint32_t pair;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(pair) : "r"(word), "n"(kNibbles), "r"(k128), "n"(kAndOr));
  return pair_of(pair);
}

template <>
__device__ __forceinline__ void load_fragments<WeightKind::kInt4>(const uint8_t* chunk, int thread, int group_size,
                                                                  WeightFragments& out) {
  const __nv_bfloat162 bias = __float2bfloat162_rn(128.0f + 8.0f);
  const uint8_t* scales = chunk + 2048;
  const uint4 words = *reinterpret_cast<const uint4*>(chunk + thread * 16);
  const uint32_t codes[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const RowScales scale(scales, group_size == 32 ? half : 0, first_row(thread));
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      const uint32_t shifted = codes[2 * half + r / 4] >> (4 * (r % 4));
      const __nv_bfloat162 integers = __hsub2(pair_of_nibbles(shifted), bias);
      out.registers[2 * half + r / 4][r % 4] = bits_of(__hmul2(integers, scale.of_register(r)));
    }
  }
}

}  // namespace skipper::cuda

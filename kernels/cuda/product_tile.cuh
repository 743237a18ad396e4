// One tile of a product: what describes it, and what becomes of its sums.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/weight_fragments.cuh"

namespace skipper::cuda {

enum class Epilogue : int { kF32, kBF16, kSwiGlu };

struct ProductArguments {
  const int64_t* table;        // DeviceMatrices::table
  const int32_t* row_offsets;  // null: dense, one matrix, num_rows rows
  bool has_old_offsets;        // they were there before the kernel before this one began its work
  MatrixEntry dense;
  void* y;
  bool has_absent_matrices;  // whose rows are not this kernel's: address 0 in the table
  int num_matrices;
  int num_rows;     // dense only
  int num_outputs;  // N
  int num_chunks;   // of K
  int tile_width;
  int num_stages;
  int stage_bytes;
  int rows_offset;  // of the rows in a stage
  int rows_bytes;   // of one chunk's rows
  Epilogue epilogue;

  // Before earlier kernels have ended.
  __device__ __forceinline__ bool knows_tiles_early() const { return row_offsets == nullptr || has_old_offsets; }
};

// One tile of the output, in the order in which blocks take them.
struct Tile {
  MatrixEntry matrix;
  int row_tile;  // first of the block's tiles of 64 outputs
  int first_row;  // among the sorted rows
  int num_rows;   // 1 .. tile_width
};

// __fdividef(x, y) is 0 for y beyond 2^126, which is the limit for very negative x.
__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// An 8 × 8 matrix of BF16 over a warp, two neighbours of a row in each lane, turned.
__device__ __forceinline__ uint32_t turned(__nv_bfloat162 pair) {
  uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(bits_of(pair)));
  return result;
}

// sums as wgmma leaves them: kernels/cuda/wgmma.cuh. Lanes hold neighbouring rows of activations; BF16 results are turned, so
// that each lane stores neighbouring outputs of one row. Addresses are walked: a tile has up to 128 stores a thread.
template <int kWidth>
__device__ __forceinline__ void store_f32(const ProductArguments& a, const Tile& tile, int output, const float* sums) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
  const int rows_left = tile.num_rows - column;
  const bool has_low = output < a.num_outputs, has_high = output + 8 < a.num_outputs;
  float* y = static_cast<float*>(a.y) + static_cast<int64_t>(tile.first_row + column) * a.num_outputs + output;
#pragma unroll
  for (int i = 0; i < kWidth / 8; ++i, y += 8 * static_cast<int64_t>(a.num_outputs)) {
    float* next_row = y + a.num_outputs;
    if (8 * i < rows_left && has_low) y[0] = sums[4 * i];
    if (8 * i < rows_left && has_high) y[8] = sums[4 * i + 2];
    if (8 * i + 1 < rows_left && has_low) next_row[0] = sums[4 * i + 1];
    if (8 * i + 1 < rows_left && has_high) next_row[8] = sums[4 * i + 3];
  }
}

// Two neighbouring outputs; `left` of them are inside the matrix.
__device__ __forceinline__ void store_pair(__nv_bfloat16* y, int left, bool is_aligned, uint32_t pair) {
  if (left >= 2 && is_aligned) {
    *reinterpret_cast<uint32_t*>(y) = pair;
  } else {
    if (left >= 1) y[0] = pair_of(pair).x;
    if (left >= 2) y[1] = pair_of(pair).y;
  }
}

// first_output: of the thread's warp, a multiple of 16.
template <int kWidth, bool kIsSwiGlu>
__device__ __forceinline__ void store_bf16(const ProductArguments& a, const Tile& tile, int first_output, const float* sums) {
  const int g = static_cast<int>(threadIdx.x) % 32 / 4, c = static_cast<int>(threadIdx.x) % 4;
  const int num_outputs = kIsSwiGlu ? a.num_outputs / 2 : a.num_outputs;
  const int output = (kIsSwiGlu ? first_output / 2 : first_output) + 2 * c;
  const int left = num_outputs - output, rows_left = tile.num_rows - g;
  const bool is_aligned = num_outputs % 2 == 0;
  auto* y = static_cast<__nv_bfloat16*>(a.y) + static_cast<int64_t>(tile.first_row + g) * num_outputs + output;
#pragma unroll
  for (int i = 0; i < kWidth / 8; ++i, y += 8 * static_cast<int64_t>(num_outputs)) {
    const float* sum = sums + 4 * i;
    if constexpr (kIsSwiGlu) {
      const uint32_t pair = turned(__floats2bfloat162_rn(silu(sum[0]) * sum[2], silu(sum[1]) * sum[3]));
      if (8 * i < rows_left) store_pair(y, left, is_aligned, pair);
    } else {
      const uint32_t low = turned(__floats2bfloat162_rn(sum[0], sum[1])), high = turned(__floats2bfloat162_rn(sum[2], sum[3]));
      if (8 * i < rows_left) store_pair(y, left, is_aligned, low);
      if (8 * i < rows_left) store_pair(y + 8, left - 8, is_aligned, high);
    }
  }
}

template <int kWidth>
__device__ __forceinline__ void store_tile(const ProductArguments& a, const Tile& tile, int row_tile, const float* sums) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroupThreads;
  const int first_output = row_tile * 64 + thread / 32 * 16;
  if (a.epilogue == Epilogue::kF32) {
    store_f32<kWidth>(a, tile, first_output + thread % 32 / 4, sums);
  } else if (a.epilogue == Epilogue::kBF16) {
    store_bf16<kWidth, false>(a, tile, first_output, sums);
  } else {
    store_bf16<kWidth, true>(a, tile, first_output, sums);
  }
}

}  // namespace skipper::cuda

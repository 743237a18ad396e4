// Attention over paged keys and values on tensor cores (mma.sync m16n8k16), after FlashAttention-2 (Dao 2023, algorithm 1) and
// Flash-Decoding: the rows of a tile are the heads of one group of several queries, so keys and values are read once for all.
//
// One arithmetic for prefill and decode. Positions are cut into splits of 256; within one, tiles of 64 keys are added by online
// softmax to a state that begins empty; the splits' states are folded in ascending order by fold(). A prefill block walks all
// splits of its rows and folds in registers; of a decode step each split is a block's, and the block that finishes last folds the
// states from memory. A tile that is masked for a row leaves the row's bits alone.
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <glog/logging.h>

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/paged_attention.h"
#include "tensor/cuda/cuda_check.h"

namespace skipper::cuda {
namespace {

constexpr int kTile = 64;  // keys
constexpr int kTilesPerSplit = kSplitPositions / kTile;
constexpr int kMinusInfinityBits = 0xff800000;

struct AttentionArguments {
  const __nv_bfloat16* q;
  const __nv_bfloat16* k;
  const __nv_bfloat16* v;
  const int32_t* query_offsets;
  const int32_t* first_position;
  const int32_t* block_tables;
  __nv_bfloat16* out;
  float* partial;     // [S, kv_heads, splits]: sums [group, D], maxima [group], weights [group]
  int32_t* finished;  // [S, kv_heads], zero between launches
  int num_rows, num_sequences, num_heads, kv_heads, group, block_size, max_blocks, num_splits;
  float scale;  // times log2(e)
};

__device__ __forceinline__ float minus_infinity() { return __int_as_float(kMinusInfinityBits); }
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ void copy_async(uint32_t destination, const void* source, bool is_valid) {
  const int bytes = is_valid ? 16 : 0;  // the rest becomes zeros
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(source), "r"(bytes) : "memory");
}

__device__ __forceinline__ void load_matrices(uint32_t address, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_turned_matrices(uint32_t address, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// d += a · b, 16 × 8 × 16.
__device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// A thread's part of two rows (g and g + 8 of its warp's sixteen) of an attention state: the largest score, the sum of weights
// and the weighted sum of values, columns 8 · j + 2 · c and + 1.
template <int kDim>
struct State {
  float maximum[2];
  float weight[2];
  float sum[kDim / 8][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      maximum[row] = minus_infinity();
      weight[row] = 0.0f;
    }
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
#pragma unroll
      for (float& value : sum[j]) value = 0.0f;
    }
  }
};

// What two states are multiplied with when they are added.
struct FoldFactors {
  float maximum, of_total, of_split;
};
__device__ __forceinline__ FoldFactors fold_factors(float total, float split, float scale) {
  const float maximum = fmaxf(total, split);
  if (maximum == minus_infinity()) return {maximum, 0.0f, 0.0f};
  return {maximum, power_of_two((total - maximum) * scale), power_of_two((split - maximum) * scale)};
}
__device__ __forceinline__ float fold(float total, float split, const FoldFactors& factors) {
  return __fmaf_rn(split, factors.of_split, __fmul_rn(total, factors.of_total));
}

template <int kDim>
__device__ __forceinline__ void fold(const State<kDim>& split, float scale, State<kDim>& total) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const FoldFactors factors = fold_factors(total.maximum[row], split.maximum[row], scale);
    total.maximum[row] = factors.maximum;
    total.weight[row] = fold(total.weight[row], split.weight[row], factors);
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      total.sum[j][2 * row] = fold(total.sum[j][2 * row], split.sum[j][2 * row], factors);
      total.sum[j][2 * row + 1] = fold(total.sum[j][2 * row + 1], split.sum[j][2 * row + 1], factors);
    }
  }
}

// A tile of keys or values in shared memory: [64][kDim], pieces of 16 bytes swizzled by row against bank conflicts.
template <int kDim>
__device__ __forceinline__ uint32_t piece_address(uint32_t tile, int row, int piece) {
  constexpr int kPieces = kDim / 8;
  return tile + (row * kPieces + (piece ^ (row & (kPieces < 8 ? kPieces - 1 : 7)))) * 16;
}

// One block's sequence.
struct Sequence {
  int first_row;       // of q
  int num_queries;
  int first_position;  // of its first query
  const int32_t* blocks;

  __device__ int num_positions() const { return first_position + num_queries; }
};

// Brings keys or values of positions [first, first + 64) under way; zeros beyond the sequence's end, whatever memory holds there.
template <int kDim>
__device__ __forceinline__ void load_tile(const AttentionArguments& a, const Sequence& sequence, const __nv_bfloat16* cache,
                                          int kv_head, int first, uint32_t tile) {
  constexpr int kPieces = kDim / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kPieces; i += static_cast<int>(blockDim.x)) {
    const int row = i / kPieces, piece = i % kPieces, position = first + row;
    const bool is_valid = position < sequence.num_positions();
    const int block = is_valid ? sequence.blocks[position / a.block_size] : 0;
    const int64_t slot = static_cast<int64_t>(block) * a.block_size + position % a.block_size;
    copy_async(piece_address<kDim>(tile, row, piece), cache + ((is_valid ? slot : 0) * a.kv_heads + kv_head) * kDim + piece * 8,
               is_valid);
  }
}

// The queries of a warp's sixteen rows as A operands. Row r of the block is head r % group of query r / group.
template <int kDim>
struct Queries {
  uint32_t registers[kDim / 16][4];
  int last_position[2];  // that rows g and g + 8 see; −1 for rows without a query

  __device__ __forceinline__ void load(const AttentionArguments& a, const Sequence& sequence, int kv_head, int first_query,
                                       int first_row, int num_rows) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, c = lane % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + g + 8 * half, query = first_query + row / a.group;
      const bool is_valid = row < num_rows && query < sequence.num_queries;
      last_position[half] = is_valid ? sequence.first_position + query : -1;
      const int64_t head = static_cast<int64_t>(sequence.first_row + query) * a.num_heads + kv_head * a.group + row % a.group;
      const auto* q = reinterpret_cast<const uint32_t*>(a.q + head * kDim);
#pragma unroll
      for (int step = 0; step < kDim / 16; ++step) {
        registers[step][half] = is_valid ? q[step * 8 + c] : 0;
        registers[step][half + 2] = is_valid ? q[step * 8 + c + 4] : 0;
      }
    }
  }
};

// scores[j] = q · kᵀ for keys 8 · j + 2 · c, + 1.
template <int kDim>
__device__ __forceinline__ void score_tile(const Queries<kDim>& queries, uint32_t keys, float (&scores)[kTile / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = lane % 8 + lane / 16 * 8, piece = lane / 8 % 2;
#pragma unroll
  for (int pair = 0; pair < kTile / 16; ++pair) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (float& value : scores[2 * pair + j]) value = 0.0f;
    }
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      uint32_t b[4];
      load_matrices(piece_address<kDim>(keys, pair * 16 + row, 2 * step + piece), b);
      multiply(scores[2 * pair], queries.registers[step], b[0], b[1]);
      multiply(scores[2 * pair + 1], queries.registers[step], b[2], b[3]);
    }
  }
}

// Scores to weights of 2^((s − maximum) · scale), with the state brought to the new maximum. weights of masked keys are 0.
template <int kDim>
__device__ __forceinline__ void soften(const Queries<kDim>& queries, int first_key, float scale, float (&scores)[kTile / 8][4],
                                       State<kDim>& state) {
  const int c = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const int left = queries.last_position[row] - first_key - 2 * c;  // keys 8 · j + {0, 1} up to it count
    float maximum = state.maximum[row];
#pragma unroll
    for (int j = 0; j < kTile / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[j][2 * row + i];
        if (8 * j + i > left) score = minus_infinity();
        maximum = fmaxf(maximum, score);
      }
    }
    maximum = fmaxf(maximum, __shfl_xor_sync(~0u, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(~0u, maximum, 2));
    const float base = maximum == minus_infinity() ? 0.0f : maximum * scale;
    // Exactly 1 where the maximum stays, as in tiles that are masked for the row.
    const bool is_empty = state.maximum[row] == minus_infinity();
    const float factor = is_empty ? 0.0f : power_of_two(__fmul_rn(__fsub_rn(state.maximum[row], maximum), scale));
    state.maximum[row] = maximum;
    float weight = __fmul_rn(state.weight[row], factor);
#pragma unroll
    for (int j = 0; j < kTile / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[j][2 * row + i];
        score = power_of_two(__fmaf_rn(score, scale, -base));
        weight = __fadd_rn(weight, score);
      }
    }
    state.weight[row] = weight;
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      state.sum[j][2 * row] = __fmul_rn(state.sum[j][2 * row], factor);
      state.sum[j][2 * row + 1] = __fmul_rn(state.sum[j][2 * row + 1], factor);
    }
  }
}

template <int kDim>
__device__ __forceinline__ void add_values(const float (&weights)[kTile / 8][4], uint32_t values, State<kDim>& state) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = lane % 16, piece = lane / 16;
#pragma unroll
  for (int step = 0; step < kTile / 16; ++step) {
    const float(&low)[4] = weights[2 * step];
    const float(&high)[4] = weights[2 * step + 1];
    const uint32_t a[4] = {pack(low[0], low[1]), pack(low[2], low[3]), pack(high[0], high[1]), pack(high[2], high[3])};
#pragma unroll
    for (int pair = 0; pair < kDim / 16; ++pair) {
      uint32_t b[4];
      load_turned_matrices(piece_address<kDim>(values, step * 16 + row, 2 * pair + piece), b);
      multiply(state.sum[2 * pair], a, b[0], b[1]);
      multiply(state.sum[2 * pair + 1], a, b[2], b[3]);
    }
  }
}

// Weights were summed per thread: now over the four that share a row.
template <int kDim>
__device__ __forceinline__ void finish_split(State<kDim>& state) {
#pragma unroll
  for (float& weight : state.weight) {
    weight = __fadd_rn(weight, __shfl_xor_sync(~0u, weight, 1));
    weight = __fadd_rn(weight, __shfl_xor_sync(~0u, weight, 2));
  }
}

struct Buffers {
  uint32_t keys, values;
};
template <int kDim>
__device__ __forceinline__ Buffers buffer(uint32_t shared, int index) {
  constexpr uint32_t kBytes = kTile * kDim * 2;
  return {shared + 2 * index * kBytes, shared + (2 * index + 1) * kBytes};
}

// What the keys of tiles [first_tile, end_tile) contribute to the rows of a warp, folded into `total` split by split.
template <int kDim>
__device__ void attend(const AttentionArguments& a, const Sequence& sequence, int kv_head, const Queries<kDim>& queries,
                       int first_tile, int end_tile, bool computes, uint32_t shared, State<kDim>& total) {
  const auto load = [&](int tile) {
    if (tile < end_tile) {
      const Buffers to = buffer<kDim>(shared, tile % 2);
      load_tile<kDim>(a, sequence, a.k, kv_head, tile * kTile, to.keys);
      load_tile<kDim>(a, sequence, a.v, kv_head, tile * kTile, to.values);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  State<kDim> state;
  state.clear();
  total.clear();
  load(first_tile);
  for (int tile = first_tile; tile < end_tile; ++tile) {
    load(tile + 1);
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    __syncthreads();
    if (computes) {
      const Buffers from = buffer<kDim>(shared, tile % 2);
      float scores[kTile / 8][4];
      score_tile(queries, from.keys, scores);
      soften(queries, tile * kTile, a.scale, scores, state);
      add_values(scores, from.values, state);
      if (tile % kTilesPerSplit == kTilesPerSplit - 1 || tile + 1 == end_tile) {
        finish_split(state);
        fold(state, a.scale, total);
        state.clear();
      }
    }
    __syncthreads();
  }
}

__device__ __forceinline__ Sequence sequence_at(const AttentionArguments& a, int index) {
  const int first_row = a.query_offsets[index];
  return {first_row, a.query_offsets[index + 1] - first_row, a.first_position[index],
          a.block_tables + static_cast<int64_t>(index) * a.max_blocks};
}

// Rows of no sequence.
template <int kDim>
__device__ void clear_other_rows(const AttentionArguments& a, int block, int num_blocks, int kv_head) {
  const int width = a.group * kDim / 8;
  for (int row = a.query_offsets[a.num_sequences] + block; row < a.num_rows; row += num_blocks) {
    auto* out = reinterpret_cast<uint4*>(a.out + (static_cast<int64_t>(row) * a.num_heads + kv_head * a.group) * kDim);
    for (int i = static_cast<int>(threadIdx.x); i < width; i += static_cast<int>(blockDim.x)) out[i] = uint4{};
  }
}

template <int kDim>
__device__ __forceinline__ __nv_bfloat16* output_of(const AttentionArguments& a, const Sequence& sequence, int kv_head, int query,
                                                    int head) {
  return a.out + (static_cast<int64_t>(sequence.first_row + query) * a.num_heads + kv_head * a.group + head) * kDim;
}

// kWarps · 16 rows a block; grid (tiles of queries, sequences, kv heads), the longest first.
template <int kDim, int kWarps>
__global__ void __launch_bounds__(kWarps * 32, 1) prefill_kernel(const __grid_constant__ AttentionArguments a) {
  extern __shared__ __align__(128) std::byte shared[];
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int kv_head = static_cast<int>(blockIdx.z);
  if (blockIdx.y == 0) clear_other_rows<kDim>(a, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x), kv_head);
  const Sequence sequence = sequence_at(a, static_cast<int>(blockIdx.y));
  const int queries_per_tile = kWarps * 16 / a.group;
  const int num_tiles = (sequence.num_queries + queries_per_tile - 1) / queries_per_tile;
  const int tile = num_tiles - 1 - static_cast<int>(blockIdx.x);
  if (tile < 0) return;
  const int first_query = tile * queries_per_tile;
  const int first_row = static_cast<int>(threadIdx.x) / 32 * 16;

  Queries<kDim> queries;
  queries.load(a, sequence, kv_head, first_query, first_row, queries_per_tile * a.group);
  const int last_query = min(first_query + queries_per_tile, sequence.num_queries) - 1;
  const int end_tile = (sequence.first_position + last_query) / kTile + 1;
  State<kDim> total;
  attend(a, sequence, kv_head, queries, 0, end_tile, true, static_cast<uint32_t>(__cvta_generic_to_shared(shared)), total);

  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (queries.last_position[half] < 0) continue;
    const int row = first_row + lane / 4 + 8 * half;
    const float inverse = __fdiv_rn(1.0f, total.weight[half]);
    auto* out = reinterpret_cast<uint32_t*>(
        output_of<kDim>(a, sequence, kv_head, first_query + row / a.group, row % a.group) + lane % 4 * 2);
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      out[j * 4] = pack(__fmul_rn(total.sum[j][2 * half], inverse), __fmul_rn(total.sum[j][2 * half + 1], inverse));
    }
  }
}

// Decode: one query per sequence, its heads in one warp's rows; a block is one split.

constexpr int kDecodeThreads = 128;  // all load, the first warp computes

template <int kDim>
__device__ __forceinline__ float* partial_of(const AttentionArguments& a, int sequence, int kv_head, int split) {
  const int64_t index = (static_cast<int64_t>(sequence) * a.kv_heads + kv_head) * a.num_splits + split;
  return a.partial + index * a.group * (kDim + 2);
}

// The block's state to memory.
template <int kDim>
__device__ __forceinline__ void store_state(const State<kDim>& state, int group, float* partial) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, c = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = g + 8 * half;
    if (row >= group) continue;
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      *reinterpret_cast<float2*>(partial + row * kDim + 8 * j + 2 * c) = {state.sum[j][2 * half], state.sum[j][2 * half + 1]};
    }
    if (c == 0) {
      partial[group * kDim + row] = state.maximum[half];
      partial[group * (kDim + 1) + row] = state.weight[half];
    }
  }
}

// Folds the splits of one (sequence, kv head) in ascending order, from memory; by the whole block.
template <int kDim>
__device__ void fold_partials(const AttentionArguments& a, const Sequence& sequence, int index, int kv_head, int num_splits) {
  for (int i = static_cast<int>(threadIdx.x); i < a.group * kDim / 2; i += static_cast<int>(blockDim.x)) {
    const int row = i / (kDim / 2), column = i % (kDim / 2) * 2;
    float maximum = minus_infinity(), weight = 0.0f, low = 0.0f, high = 0.0f;
    for (int split = 0; split < num_splits; ++split) {
      const float* partial = partial_of<kDim>(a, index, kv_head, split);
      const FoldFactors factors = fold_factors(maximum, partial[a.group * kDim + row], a.scale);
      const float2 sums = *reinterpret_cast<const float2*>(partial + row * kDim + column);
      maximum = factors.maximum;
      weight = fold(weight, partial[a.group * (kDim + 1) + row], factors);
      low = fold(low, sums.x, factors);
      high = fold(high, sums.y, factors);
    }
    const float inverse = __fdiv_rn(1.0f, weight);
    *reinterpret_cast<uint32_t*>(output_of<kDim>(a, sequence, kv_head, 0, row) + column) =
        pack(__fmul_rn(low, inverse), __fmul_rn(high, inverse));
  }
}

template <int kDim>
__global__ void __launch_bounds__(kDecodeThreads) decode_kernel(const __grid_constant__ AttentionArguments a) {
  extern __shared__ __align__(128) std::byte shared[];
  __shared__ bool is_last;
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int index = static_cast<int>(blockIdx.y), kv_head = static_cast<int>(blockIdx.z), split = static_cast<int>(blockIdx.x);
  if (split == 0) clear_other_rows<kDim>(a, index, static_cast<int>(gridDim.y), kv_head);
  const Sequence sequence = sequence_at(a, index);
  const int num_tiles = (sequence.num_positions() + kTile - 1) / kTile;
  const int num_splits = (num_tiles + kTilesPerSplit - 1) / kTilesPerSplit;
  if (sequence.num_queries == 0 || split >= num_splits) return;

  Queries<kDim> queries;
  const bool computes = threadIdx.x < 32;
  queries.load(a, sequence, kv_head, 0, 0, a.group);
  State<kDim> state;
  attend(a, sequence, kv_head, queries, split * kTilesPerSplit, min(num_tiles, (split + 1) * kTilesPerSplit), computes,
         static_cast<uint32_t>(__cvta_generic_to_shared(shared)), state);
  if (computes) store_state(state, a.group, partial_of<kDim>(a, index, kv_head, split));
  __threadfence();
  __syncthreads();
  int32_t* finished = a.finished + index * a.kv_heads + kv_head;
  if (threadIdx.x == 0) is_last = atomicAdd(finished, 1) == num_splits - 1;
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  if (threadIdx.x == 0) *finished = 0;
  fold_partials<kDim>(a, sequence, index, kv_head, num_splits);
}

template <int kDim>
constexpr size_t kSharedBytes = 4 * kTile * kDim * 2;

template <typename Kernel>
void allow_shared(Kernel kernel, size_t bytes) {
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}

template <int kDim>
void run(const AttentionArguments& a, int64_t max_queries, Stream& stream) {
  constexpr int kWarps = 8;
  static const bool is_prepared = [] {
    allow_shared(prefill_kernel<kDim, kWarps>, kSharedBytes<kDim>);
    allow_shared(decode_kernel<kDim>, kSharedBytes<kDim>);
    return true;
  }();
  CHECK(is_prepared);
  const auto sequences = static_cast<unsigned>(a.num_sequences), kv_heads = static_cast<unsigned>(a.kv_heads);
  if (max_queries == 1) {
    launch(decode_kernel<kDim>,
           {dim3(static_cast<unsigned>(a.num_splits), sequences, kv_heads), dim3(kDecodeThreads), kSharedBytes<kDim>}, stream, a);
    return;
  }
  const int64_t queries_per_tile = kWarps * 16 / a.group;
  const auto tiles = static_cast<unsigned>((max_queries + queries_per_tile - 1) / queries_per_tile);
  launch(prefill_kernel<kDim, kWarps>, {dim3(tiles, sequences, kv_heads), dim3(kWarps * 32), kSharedBytes<kDim>}, stream, a);
}

int64_t num_splits_of(int64_t max_positions) { return (max_positions + kSplitPositions - 1) / kSplitPositions; }

}  // namespace

AttentionScratch::AttentionScratch(int64_t max_sequences, int64_t max_positions, int64_t num_heads, int64_t head_dim,
                                   Device device)
    : partial(Tensor::zeros({max_sequences * num_heads * (1 + num_splits_of(max_positions) * (head_dim + 2))}, DType::kF32,
                            device)) {}

void paged_attention(const PagedAttentionInput& input, AttentionScratch& scratch, Tensor& out, Stream& stream) {
  constexpr float kLog2E = 1.44269504088896340736f;
  const int64_t num_heads = input.q.dim(1), head_dim = input.q.dim(2), kv_heads = input.k_cache.dim(1);
  const int64_t num_sequences = input.first_position.num_elements();
  CHECK(input.q.dtype() == DType::kBF16 && out.dtype() == DType::kBF16 && out.shape() == input.q.shape());
  CHECK(num_heads % kv_heads == 0 && num_heads / kv_heads <= 16);
  CHECK_EQ(input.query_offsets.num_elements(), num_sequences + 1);
  if (input.q.dim(0) == 0 || num_sequences == 0) return;
  const int64_t num_counters = num_sequences * kv_heads, num_splits = num_splits_of(input.max_positions);
  if (input.max_queries == 1) {
    CHECK_LE(num_sequences * (kv_heads + num_heads * num_splits * (head_dim + 2)), scratch.partial.num_elements());
  }
  // Counters lie at the end, where they keep their place whatever the shape.
  float* end = scratch.partial.data<float>() + scratch.partial.num_elements();
  const AttentionArguments a{.q = reinterpret_cast<const __nv_bfloat16*>(input.q.bytes()),
                             .k = reinterpret_cast<const __nv_bfloat16*>(input.k_cache.bytes()),
                             .v = reinterpret_cast<const __nv_bfloat16*>(input.v_cache.bytes()),
                             .query_offsets = input.query_offsets.data<int32_t>(),
                             .first_position = input.first_position.data<int32_t>(),
                             .block_tables = input.block_tables.data<int32_t>(),
                             .out = reinterpret_cast<__nv_bfloat16*>(out.bytes()),
                             .partial = scratch.partial.data<float>(),
                             .finished = reinterpret_cast<int32_t*>(end - num_counters),
                             .num_rows = static_cast<int>(input.q.dim(0)),
                             .num_sequences = static_cast<int>(num_sequences),
                             .num_heads = static_cast<int>(num_heads),
                             .kv_heads = static_cast<int>(kv_heads),
                             .group = static_cast<int>(num_heads / kv_heads),
                             .block_size = static_cast<int>(input.block_size),
                             .max_blocks = static_cast<int>(input.block_tables.dim(1)),
                             .num_splits = static_cast<int>(num_splits),
                             .scale = input.scale * kLog2E};
  switch (head_dim) {
    case 16: return run<16>(a, input.max_queries, stream);
    case 32: return run<32>(a, input.max_queries, stream);
    case 64: return run<64>(a, input.max_queries, stream);
    case 128: return run<128>(a, input.max_queries, stream);
    default: LOG(FATAL) << "paged_attention: heads of " << head_dim;
  }
}

}  // namespace skipper::cuda

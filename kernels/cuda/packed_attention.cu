// Queries stay in registers and meet tiles of 64 keys, which are copied to shared memory while the tile before is multiplied.
// Softmax is computed as the tiles come (Milakov and Gimelshein 2018; Dao et al. 2022): scores never leave the registers, whose
// layout as the result of one product is that of an operand of the next.
#include "kernels/cuda/packed_attention.h"

#include <cuda_bf16.h>
#include <glog/logging.h>

#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_vectors.cuh"

namespace skipper::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kBlockThreads = 32 * kWarps;
constexpr int kTileKeys = 64;

// kSteps: of 16 elements of a head. kRowTiles: of 16 queries of a warp; two of them use a key fragment twice, where registers
// suffice.
template <int kSteps>
struct HeadShape {
  static constexpr int kHeadDim = 16 * kSteps;
  static constexpr int kRowTiles = kSteps <= 5 ? 2 : 1;
  static constexpr int kBlockQueries = 16 * kRowTiles * kWarps;
  // Eight elements more than a head, so that the eight rows that ldmatrix reads at once lie in different banks.
  static constexpr int kStride = kHeadDim + 8;
  static constexpr int kTileElements = kTileKeys * kStride;
  static constexpr int kSharedBytes = 2 * 2 * kTileElements * 2;  // two stages of keys and values
};

struct AttentionArguments {
  const __nv_bfloat16* q;
  const __nv_bfloat16* k;
  const __nv_bfloat16* v;
  const int32_t* offsets;
  __nv_bfloat16* out;
  int num_heads;
  int head_dim;        // D, of the result
  float scale_log2_e;  // scores become exponents of 2
};

using Fragment = uint32_t[4];  // of an operand of 16 × 16
using Sums = float[4];         // of a product's 16 × 8: rows lane / 4 and 8 below, two neighbouring columns each

__device__ __forceinline__ uint32_t shared_bytes_of(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Sixteen bytes to shared memory; zeros unless `valid`, and then nothing is read.
__device__ __forceinline__ void copy_or_clear(void* target, const void* source, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_bytes_of(target)), "l"(source), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kInFlight>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kInFlight) : "memory");
}

// Four 8 × 8 matrices; lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(Fragment& to, const __nv_bfloat16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_bytes_of(row))
               : "memory");
}
__device__ __forceinline__ void load_transposed(Fragment& to, const __nv_bfloat16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_bytes_of(row))
               : "memory");
}

__device__ __forceinline__ void multiply(Sums& sums, const Fragment& a, uint32_t b_low, uint32_t b_high) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
}

// Rows [first, first + 64) of one head; what lies beyond the sequence becomes zeros.
template <int kSteps>
__device__ __forceinline__ void copy_tile(__nv_bfloat16* tile, const __nv_bfloat16* head, int first, int length, int row_stride) {
  constexpr int kChunks = 2 * kSteps;  // of 8 elements
  for (int i = threadIdx.x; i < kTileKeys * kChunks; i += kBlockThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const bool valid = first + row < length;
    const int64_t source = int64_t{valid ? first + row : 0} * row_stride + chunk * 8;
    copy_or_clear(tile + row * HeadShape<kSteps>::kStride + chunk * 8, head + source, valid);
  }
}

// The sixteen queries from row `first` on; zeros beyond the sequence.
template <int kSteps>
__device__ __forceinline__ void load_queries(Fragment (&q)[kSteps], const __nv_bfloat16* head, int first, int length,
                                             int row_stride) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int row = first + lane / 4 + part % 2 * 8, column = 16 * step + part / 2 * 8 + lane % 4 * 2;
      const auto* source = reinterpret_cast<const uint32_t*>(head + int64_t{row} * row_stride + column);
      q[step][part] = row < length ? *source : 0;
    }
  }
}

// What a warp keeps of 16 queries while the keys pass.
template <int kSteps>
struct QueryState {
  Sums out[2 * kSteps] = {};
  float highest[2] = {-INFINITY, -INFINITY};  // of the rows lane / 4 and 8 below, in units of log2
  float normaliser[2] = {0.0f, 0.0f};         // of this lane's columns alone
};

template <int kSteps, int kRowTiles>
__device__ __forceinline__ void score_tile(Sums (&scores)[kRowTiles][kTileKeys / 8], const Fragment (&q)[kRowTiles][kSteps],
                                           const __nv_bfloat16* keys) {
  const int lane = threadIdx.x % 32;
  const __nv_bfloat16* const row = keys + (lane / 16 * 8 + lane % 8) * HeadShape<kSteps>::kStride + lane / 8 % 2 * 8;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int pair = 0; pair < kTileKeys / 16; ++pair) {
      Fragment k;
      load_matrices(k, row + pair * 16 * HeadShape<kSteps>::kStride + step * 16);
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
        multiply(scores[tile][2 * pair], q[tile][step], k[0], k[1]);
        multiply(scores[tile][2 * pair + 1], q[tile][step], k[2], k[3]);
      }
    }
  }
}

// Scores become softmax weights relative to the highest score so far; what was summed before is scaled to it.
template <int kSteps>
__device__ __forceinline__ void weigh_tile(Sums (&scores)[kTileKeys / 8], int num_keys, float scale, QueryState<kSteps>& state) {
  const int first_column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float highest = state.highest[half];
#pragma unroll
    for (int i = 0; i < kTileKeys / 4; ++i) {
      float& score = scores[i / 2][2 * half + i % 2];
      score = i / 2 * 8 + first_column + i % 2 < num_keys ? score * scale : -INFINITY;
      highest = fmaxf(highest, score);
    }
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
    const float correction = exp2f(state.highest[half] - highest);
    state.highest[half] = highest;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kTileKeys / 4; ++i) {
      float& score = scores[i / 2][2 * half + i % 2];
      score = exp2f(score - highest);
      sum += score;
    }
    state.normaliser[half] = state.normaliser[half] * correction + sum;
#pragma unroll
    for (int column = 0; column < 2 * kSteps; ++column) {
      state.out[column][2 * half] *= correction;
      state.out[column][2 * half + 1] *= correction;
    }
  }
}

template <int kSteps, int kRowTiles>
__device__ __forceinline__ void add_values(const Sums (&weights)[kRowTiles][kTileKeys / 8], const __nv_bfloat16* values,
                                           QueryState<kSteps> (&states)[kRowTiles]) {
  const int lane = threadIdx.x % 32;
  const __nv_bfloat16* const row = values + (lane / 8 % 2 * 8 + lane % 8) * HeadShape<kSteps>::kStride + lane / 16 * 8;
#pragma unroll
  for (int step = 0; step < kTileKeys / 16; ++step) {
    Fragment w[kRowTiles];
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const Sums& two = weights[tile][2 * step + part / 2];
        w[tile][part] = bf16_pair(two[part % 2 * 2], two[part % 2 * 2 + 1]);
      }
    }
#pragma unroll
    for (int pair = 0; pair < kSteps; ++pair) {
      Fragment v;
      load_transposed(v, row + step * 16 * HeadShape<kSteps>::kStride + pair * 16);
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
        multiply(states[tile].out[2 * pair], w[tile], v[0], v[1]);
        multiply(states[tile].out[2 * pair + 1], w[tile], v[2], v[3]);
      }
    }
  }
}

template <int kSteps>
__device__ __forceinline__ void write_queries(const QueryState<kSteps>& state, const AttentionArguments& a, int64_t first_row,
                                              int num_rows) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float inverse = 1.0f / group_sum(state.normaliser[half], 4);
    const int row = lane / 4 + 8 * half;
    if (row >= num_rows) continue;
    __nv_bfloat16* const out = a.out + ((first_row + row) * a.num_heads + blockIdx.y) * a.head_dim;
#pragma unroll
    for (int column = 0; column < 2 * kSteps; ++column) {
      if (8 * column >= a.head_dim) break;
      const float* const sums = state.out[column] + 2 * half;
      *reinterpret_cast<uint32_t*>(out + 8 * column + lane % 4 * 2) = bf16_pair(sums[0] * inverse, sums[1] * inverse);
    }
  }
}

// blockIdx.x: queries of a sequence, .y: head, .z: sequence.
template <int kSteps>
__global__ void __launch_bounds__(kBlockThreads) attend(AttentionArguments a) {
  using Head = HeadShape<kSteps>;
  extern __shared__ __align__(16) __nv_bfloat16 tiles[];  // [stage 2][keys, values][64][kStride]
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int begin = a.offsets[blockIdx.z], length = a.offsets[blockIdx.z + 1] - begin;
  const int first_of_block = static_cast<int>(blockIdx.x) * Head::kBlockQueries;
  if (first_of_block >= length) return;

  const int row_stride = a.num_heads * Head::kHeadDim;
  const int64_t head = int64_t{begin} * row_stride + int64_t{blockIdx.y} * Head::kHeadDim;
  const auto copy_stage = [&](int first_key) {
    __nv_bfloat16* const stage = tiles + first_key / kTileKeys % 2 * 2 * Head::kTileElements;
    copy_tile<kSteps>(stage, a.k + head, first_key, length, row_stride);
    copy_tile<kSteps>(stage + Head::kTileElements, a.v + head, first_key, length, row_stride);
    commit_copies();
  };
  copy_stage(0);

  const int first_query = first_of_block + static_cast<int>(threadIdx.x) / 32 * 16 * Head::kRowTiles;
  Fragment q[Head::kRowTiles][kSteps];
  QueryState<kSteps> states[Head::kRowTiles];
#pragma unroll
  for (int tile = 0; tile < Head::kRowTiles; ++tile) {
    load_queries<kSteps>(q[tile], a.q + head, first_query + 16 * tile, length, row_stride);
  }
  for (int first_key = 0; first_key < length; first_key += kTileKeys) {
    if (first_key + kTileKeys < length) {
      copy_stage(first_key + kTileKeys);
    } else {
      commit_copies();  // of nothing: keeps the count of the groups in flight
    }
    wait_for_copies<1>();
    __syncthreads();
    const __nv_bfloat16* const keys = tiles + first_key / kTileKeys % 2 * 2 * Head::kTileElements;
    Sums scores[Head::kRowTiles][kTileKeys / 8] = {};
    score_tile<kSteps>(scores, q, keys);
#pragma unroll
    for (int tile = 0; tile < Head::kRowTiles; ++tile) {
      weigh_tile<kSteps>(scores[tile], length - first_key, a.scale_log2_e, states[tile]);
    }
    add_values<kSteps>(scores, keys + Head::kTileElements, states);
    __syncthreads();  // before the next copies take this stage
  }
#pragma unroll
  for (int tile = 0; tile < Head::kRowTiles; ++tile) {
    const int first = first_query + 16 * tile;
    write_queries<kSteps>(states[tile], a, begin + first, length - first);
  }
}

struct AttentionGrid {
  int64_t longest;
  int64_t num_sequences;
};

template <int kSteps>
void launch_attention(const AttentionArguments& arguments, const AttentionGrid& grid, Stream& stream) {
  using Head = HeadShape<kSteps>;
  // Once, before the first launch: it must not happen while a graph is captured for the first time, and costs time.
  static const cudaError_t raised =
      cudaFuncSetAttribute(attend<kSteps>, cudaFuncAttributeMaxDynamicSharedMemorySize, Head::kSharedBytes);
  CUDA_CHECK(raised);
  const auto query_blocks = static_cast<unsigned>((grid.longest + Head::kBlockQueries - 1) / Head::kBlockQueries);
  const dim3 blocks(query_blocks, static_cast<unsigned>(arguments.num_heads), static_cast<unsigned>(grid.num_sequences));
  launch(attend<kSteps>, {blocks, dim3(kBlockThreads), Head::kSharedBytes}, stream, arguments);
}

AttentionArguments check_arguments(const PackedAttentionInput& input, Tensor& out) {
  constexpr std::string_view kName = "packed_attention";
  constexpr float kLog2E = 1.44269504f;
  check_rank(kName, input.q, 3);
  check_rank(kName, out, 2);
  const int64_t rows = input.q.dim(0), num_heads = input.q.dim(1), head_dim = out.dim(1) / num_heads;
  const Shape padded{rows, num_heads, padded_head_dim(head_dim)};
  for (const Tensor* part : {&input.q, &input.k, &input.v}) check_operand(kName, *part, DType::kBF16, padded);
  check_operand(kName, out, DType::kBF16, {rows, num_heads * head_dim});
  check_operand(kName, input.offsets, DType::kI32, {input.offsets.dim(0)});
  CHECK_GE(input.offsets.dim(0), 1) << "packed_attention: offsets need S + 1 entries";
  const auto elements = [](const auto& tensor) { return reinterpret_cast<const __nv_bfloat16*>(tensor.bytes()); };
  return {elements(input.q),
          elements(input.k),
          elements(input.v),
          input.offsets.data<int32_t>(),
          reinterpret_cast<__nv_bfloat16*>(out.bytes()),
          static_cast<int>(num_heads),
          static_cast<int>(head_dim),
          input.scale * kLog2E};
}

}  // namespace

int64_t padded_head_dim(int64_t head_dim) {
  CHECK(head_dim > 0 && head_dim % 8 == 0 && head_dim <= 128) << "heads of " << head_dim;
  int64_t padded = 128;
  for (const int64_t width : {80, 64, 32}) {
    if (head_dim <= width) padded = width;
  }
  return padded;
}

void packed_attention(const PackedAttentionInput& input, Tensor& out, Stream& stream) {
  const AttentionArguments arguments = check_arguments(input, out);
  const AttentionGrid grid{input.longest, input.offsets.dim(0) - 1};
  switch (input.q.dim(2)) {
    case 32:
      return launch_attention<2>(arguments, grid, stream);
    case 64:
      return launch_attention<4>(arguments, grid, stream);
    case 80:
      return launch_attention<5>(arguments, grid, stream);
    default:
      return launch_attention<8>(arguments, grid, stream);
  }
}

}  // namespace skipper::cuda

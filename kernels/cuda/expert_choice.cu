// With one row, each of the four kernels that this one replaces takes two to three microseconds, most of them until it has begun
// and its first loads have come. Here one cluster of eight blocks does all of it, and what it shares goes from SM to SM. (From
// four rows on the eight SMs' arithmetic takes longer than four launches.)
//
// Block r has the router's rows of experts [r · n, r · n + n) in shared memory before the attention output is there. Then each
// block norms the rows, its half-warps compute router logits as in kernels/cuda/router_logits.cu and give them to all blocks, one
// warp per token routes it, in every block, and each block sorts and writes the rows of its own experts.
#include "kernels/cuda/expert_choice.h"

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_pipeline_primitives.h>
#include <glog/logging.h>

#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/route_token.cuh"
#include "kernels/cuda/row_norm.cuh"
#include "kernels/cuda/row_vectors.cuh"

namespace skipper::cuda {
namespace {

namespace cg = cooperative_groups;

constexpr int kBlocks = 8;  // of the cluster
constexpr int kThreads = 2 * kRowThreads;
constexpr int kTeams = kThreads / kRowThreads;  // each norms a row
constexpr int kMaxTokens = kTeams;
constexpr int kVectors = 4;  // fours of a row per thread of a team
constexpr int kMaxHidden = 4 * kVectors * kRowThreads;
constexpr int kSlices = 16, kChunkVectors = 2;  // of a dot product, as in router_logits.cu
static_assert(kMaxTokens * kMaxSlots <= 32);  // a lane has a pair
constexpr int64_t kMostExperts = 256;
constexpr int64_t kMostSharedBytes = 208 * 1024;

struct ChoiceArguments {
  RouteArguments route;
  NormArguments norm;
  const float* delta;
  const float* router;
  int32_t* row_offsets;
  int32_t* row_index;
  int32_t* row_of_pair;
  uint4* sorted_rows;
  int64_t max_sorted_rows;
  int experts_per_block;

  __device__ __forceinline__ int num_tokens() const { return static_cast<int>(route.num_tokens); }
  __device__ __forceinline__ int num_pairs() const { return num_tokens() * route.top_k; }
};

// Fours of a row in shared memory lie so that eight lanes that read the same half of neighbouring chunks use all banks.
__device__ __forceinline__ int place_of(int vector) { return vector ^ (vector >> 3 & 1); }

// What a block shares among its threads, and some of it with the other blocks.
struct Shared {
  float4* router;  // [experts_per_block][H / 4]
  float4* rows;    // [T][H / 4], normed
  float* logits;   // [T][E]

  __device__ __forceinline__ Shared(float4* memory, const ChoiceArguments& a)
      : router(memory),
        rows(router + a.experts_per_block * a.norm.num_vectors),
        logits(reinterpret_cast<float*>(rows + a.num_tokens() * a.norm.num_vectors)) {}
};

__device__ __forceinline__ void begin_router(const ChoiceArguments& a, int rank, float4* into) {
  const int num_vectors = a.norm.num_vectors, first_expert = rank * a.experts_per_block;
  const int num_experts = min(a.experts_per_block, a.route.num_experts - first_expert);
  const auto* const from = reinterpret_cast<const float4*>(a.router) + int64_t{first_expert} * num_vectors;
  for (int i = static_cast<int>(threadIdx.x); i < num_experts * num_vectors; i += kThreads) {
    const int row = i / num_vectors;
    __pipeline_memcpy_async(into + row * num_vectors + place_of(i - row * num_vectors), from + i, sizeof(float4));
  }
  __pipeline_commit();
}

// A row of the residual stream in the registers of a team, and its place in memory.
struct TeamRow {
  Four x[kVectors];
  int row;
  bool exists;

  __device__ __forceinline__ void load(const ChoiceArguments& a, int lane) {
    const int64_t first = int64_t{row} * 4 * a.norm.num_vectors;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int i = v * kRowThreads + lane;
      x[v] = Four{};
      if (exists && i < a.norm.num_vectors) x[v] = load_four(a.norm.x + first, i) + load_four(a.delta + first, i);
    }
  }
  __device__ __forceinline__ void store(const ChoiceArguments& a, int lane) const {
    const int64_t first = int64_t{row} * 4 * a.norm.num_vectors;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int i = v * kRowThreads + lane;
      if (exists && i < a.norm.num_vectors) store_four(x[v], a.norm.sum + first, i);
    }
  }
};

__device__ __forceinline__ void norm_row(const ChoiceArguments& a, const TeamRow& own, const Four (&weight)[kVectors], int lane,
                                         float scale, const Shared& shared) {
  if (!own.exists) return;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int i = v * kRowThreads + lane;
    if (i >= a.norm.num_vectors) continue;
    const Four normed = own.x[v] * scale * weight[v];
    shared.rows[own.row * a.norm.num_vectors + place_of(i)] = make_float4(normed.x, normed.y, normed.z, normed.w);
  }
}

__device__ __forceinline__ float multiply_four(const float4& x, const float4& w, float sum) {
  return fmaf(x.w, w.w, fmaf(x.z, w.z, fmaf(x.y, w.y, fmaf(x.x, w.x, sum))));
}

// One slice of a dot product of two rows in shared memory, and then all: the same in the sixteen lanes of a half-warp.
__device__ __forceinline__ float logit_of(const float4* x, const float4* w, int num_vectors) {
  const int slice = static_cast<int>(threadIdx.x) % kSlices;
  float sum = 0.0f;
#pragma unroll 4
  for (int i = kChunkVectors * slice; i < num_vectors; i += kChunkVectors * kSlices) {
    const int low = place_of(i), high = place_of(i + 1);
    sum = multiply_four(x[low], w[low], sum);
    sum = multiply_four(x[high], w[high], sum);
  }
#pragma unroll
  for (int distance = kSlices / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
  return sum;
}

// Logits of this block's experts to all blocks.
__device__ __forceinline__ void share_logits(const ChoiceArguments& a, const Shared& shared, int rank) {
  const auto cluster = cg::this_cluster();
  const int num_vectors = a.norm.num_vectors, num_items = a.experts_per_block * a.num_tokens();
  const int half_warp = static_cast<int>(threadIdx.x) / kSlices, lane = static_cast<int>(threadIdx.x) % kSlices;
  for (int first = 0; first + half_warp / 2 * 2 < num_items; first += kThreads / kSlices) {  // both halves of a warp or none
    const int item = min(first + half_warp, num_items - 1);
    const int expert = item % a.experts_per_block, token = item / a.experts_per_block;
    const int id = rank * a.experts_per_block + expert;
    const float logit = logit_of(shared.rows + token * num_vectors, shared.router + expert * num_vectors, num_vectors);
    if (lane < kBlocks && id < a.route.num_experts) {
      *cluster.map_shared_rank(shared.logits + token * a.route.num_experts + id, lane) = logit;
    }
  }
}

// A normed row rounded into its place, by a warp.
__device__ __forceinline__ void write_sorted_row(const ChoiceArguments& a, const Shared& shared, int token, int64_t row) {
  const int num_vectors = a.norm.num_vectors;
  const float4* const from = shared.rows + token * num_vectors;
  uint4* const to = a.sorted_rows + row * (num_vectors / 2);
  for (int chunk = static_cast<int>(threadIdx.x) % 32; chunk < num_vectors / 2; chunk += 32) {
    const float4 low = from[place_of(2 * chunk)], high = from[place_of(2 * chunk + 1)];
    to[chunk] = make_uint4(bf16_pair(low.x, low.y), bf16_pair(low.z, low.w),  //
                           bf16_pair(high.x, high.y), bf16_pair(high.z, high.w));
  }
}

// A warp places the pairs of one expert, in order, and writes their rows. `id`: of the lane's pair; −1: none, or skipped.
__device__ __forceinline__ void sort_expert(const ChoiceArguments& a, const Shared& shared, int32_t id, int expert) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int row = __popc(__ballot_sync(kAllLanes, id >= 0 && id < expert));
  const unsigned own = __ballot_sync(kAllLanes, id == expert);
  const int row_of_lane = row + __popc(own & ((1u << lane) - 1));
  if (lane == 0) a.row_offsets[expert] = row;
  if (id == expert && row_of_lane < a.max_sorted_rows) {
    a.row_index[row_of_lane] = lane / a.route.top_k;
    a.row_of_pair[lane] = row_of_lane;
  }
  for (unsigned left = own; left != 0; left &= left - 1, ++row) {
    const int pair = __ffs(left) - 1;
    if (row < a.max_sorted_rows) write_sorted_row(a, shared, pair / a.route.top_k, row);
  }
  if (lane == 0 && expert == a.route.num_experts - 1) a.row_offsets[expert + 1] = row;
}

template <int kPerLane>
__global__ void __cluster_dims__(kBlocks, 1, 1) __launch_bounds__(kThreads, 1) choose(ChoiceArguments a) {
  extern __shared__ float4 memory[];
  __shared__ float partial[kTeams][kRowThreads / 32];
  __shared__ Home homes[32 * kPerLane];
  __shared__ int32_t ids[kMaxTokens * kMaxSlots];
  __shared__ int counts[kNumCounts];
  const auto cluster = cg::this_cluster();
  const int rank = static_cast<int>(cluster.block_rank());
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int team = static_cast<int>(threadIdx.x) / kRowThreads, team_lane = static_cast<int>(threadIdx.x) % kRowThreads;
  const Shared shared(memory, a);

  // What no kernel of a step writes.
  begin_router(a, rank, shared.router);
  TeamRow own{.row = team};
  own.exists = own.row < a.num_tokens();
  Four weight[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int i = v * kRowThreads + team_lane;
    if (i < a.norm.num_vectors) weight[v] = load_four(a.norm.weight, i);
  }
  load_homes(a.route, homes);
  if (threadIdx.x < kNumCounts) counts[threadIdx.x] = 0;
  if (own.exists) a.norm.prefetch_row(int64_t{own.row} * 4 * a.norm.num_vectors, team_lane);
  if (rank == 0 && warp == kThreads / 32 - 1) prefetch_tables(a.route, lane);
  if (warp < a.num_tokens()) prefetch_token(a.route, warp, lane);
  cluster.sync();  // all blocks run, so their memory may be written
  allow_next_kernel();
  wait_for_earlier_kernels();

  own.load(a, team_lane);
  float squares = 0.0f;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) squares += sum_of_squares(own.x[v]);
  const float scale = a.norm.scale_of(block_sum<kRowThreads>(squares, partial[team]));
  norm_row(a, own, weight, team_lane, scale, shared);
  __pipeline_wait_prior(0);
  __syncthreads();
  share_logits(a, shared, rank);
  cluster.sync();

  if (rank == 0) own.store(a, team_lane);  // all have read it
  if (warp < a.num_tokens()) {
    const RoutedToken routed = route_token<kPerLane>(a.route, warp, shared.logits + warp * a.route.num_experts, homes);
    if (routed.slots.is_slot()) ids[warp * a.route.top_k + lane] = routed.expert_that_runs();
    if (warp == rank) write_routed(a.route, warp, routed, counts);
  }
  __syncthreads();
  add_counts(a.route, counts);
  const int32_t id = lane < a.num_pairs() ? ids[lane] : -1;
  if (rank == 0 && warp == 0 && lane < a.num_pairs() && id < 0) a.row_of_pair[lane] = -1;
  const int first_expert = rank * a.experts_per_block;
  const int end_expert = min(first_expert + a.experts_per_block, a.route.num_experts);
  for (int expert = first_expert + warp; expert < end_expert; expert += kThreads / 32) sort_expert(a, shared, id, expert);
}

int experts_per_block(int64_t num_experts) { return static_cast<int>((num_experts + kBlocks - 1) / kBlocks); }

int64_t shared_bytes(const ExpertChoiceShape& shape) {
  const int64_t rows = experts_per_block(shape.num_experts) + shape.num_tokens;
  return static_cast<int64_t>(sizeof(float)) * (rows * shape.hidden_size + shape.num_tokens * shape.num_experts);
}

// The limit is raised once, before a graph is captured.
template <int kPerLane>
void launch_choose(const ChoiceArguments& arguments, int64_t bytes, Stream& stream) {
  static const cudaError_t raised =
      cudaFuncSetAttribute(choose<kPerLane>, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostSharedBytes);
  CUDA_CHECK(raised);
  launch(choose<kPerLane>, {dim3(kBlocks), dim3(kThreads), static_cast<size_t>(bytes)}, stream, arguments);
}

void check_sorted(const ExpertChoiceOutput& output, const ChoiceArguments& arguments) {
  constexpr std::string_view kName = "choose_experts";
  check_operand(kName, output.sorted.row_offsets, DType::kI32, {arguments.route.num_experts + 1});
  check_operand(kName, output.sorted.row_of_pair, DType::kI32, {arguments.route.num_tokens, arguments.route.top_k});
  check_rank(kName, output.sorted_rows, 2);
  const int64_t num_rows = output.sorted_rows.dim(0);
  check_operand(kName, output.sorted.row_index, DType::kI32, {num_rows});
  check_operand(kName, output.sorted_rows, DType::kBF16, {num_rows, output.hidden.dim(1)});
}

}  // namespace

bool can_choose_experts(const ExpertChoiceShape& shape) {
  return shape.num_tokens > 0 && shape.num_tokens <= kMaxTokens && shape.num_experts <= kMostExperts &&
         shape.hidden_size <= kMaxHidden && shape.hidden_size % 8 == 0 && shared_bytes(shape) <= kMostSharedBytes;
}

void choose_experts(const ExpertChoiceInput& input, const ExpertChoiceOutput& output, Stream& stream) {
  constexpr std::string_view kName = "choose_experts";
  ChoiceArguments arguments{.route = route_arguments(input.route, output.route)};
  const ExpertChoiceShape shape{arguments.route.num_tokens, output.hidden.dim(1), arguments.route.num_experts};
  CHECK(can_choose_experts(shape)) << kName << ": " << shape.num_tokens << " rows of " << shape.hidden_size;
  check_operand(kName, output.hidden, DType::kF32, {shape.num_tokens, shape.hidden_size});
  check_operand(kName, input.delta, DType::kF32, output.hidden.shape());
  check_operand(kName, input.router, DType::kF32, {shape.num_experts, shape.hidden_size});
  check_operand(kName, input.norm.weight, DType::kF32, {shape.hidden_size});
  check_sorted(output, arguments);
  arguments.norm.x = arguments.norm.sum = output.hidden.data<float>();
  arguments.norm.weight = input.norm.weight.data<float>();
  arguments.norm.num_vectors = static_cast<int>(shape.hidden_size / 4);
  arguments.norm.epsilon = input.norm.epsilon;
  arguments.delta = input.delta.data<float>();
  arguments.router = input.router.data<float>();
  arguments.row_offsets = output.sorted.row_offsets.data<int32_t>();
  arguments.row_index = output.sorted.row_index.data<int32_t>();
  arguments.row_of_pair = output.sorted.row_of_pair.data<int32_t>();
  arguments.sorted_rows = reinterpret_cast<uint4*>(output.sorted_rows.bytes());
  arguments.max_sorted_rows = output.sorted_rows.dim(0);
  arguments.experts_per_block = experts_per_block(shape.num_experts);
  const int64_t bytes = shared_bytes(shape);
  if (shape.num_experts <= 128) return launch_choose<4>(arguments, bytes, stream);
  launch_choose<8>(arguments, bytes, stream);
}

}  // namespace skipper::cuda

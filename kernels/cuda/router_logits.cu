// Router logits for few tokens, for some and for many, to the same bits.
//
// The inputs are dealt to 16 slices in chunks of 8: slice s takes chunks s, s + 16, s + 32, ... A slice is one serial chain of
// fused multiply-adds over its inputs in ascending order, and the 16 sums are added as a tree: s and s + 8, then + 4, + 2, + 1.
// For few tokens the slices of a dot product are 16 neighbouring lanes, so one expert's row is read in whole lines; for some they
// are dealt to the 8 blocks of a cluster, so that tiles of 32 tokens and experts still fill the GPU; for many they are the 16
// warps of a block, each with a tile of 64 tokens and 32 experts in registers.
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_pipeline_primitives.h>
#include <glog/logging.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/routing.h"

namespace skipper::cuda {
namespace {

constexpr int kSlices = 16;
constexpr int kChunk = 8;
constexpr int kRound = kSlices * kChunk;  // inputs of one chunk of every slice

template <typename W>
struct LogitsArguments {
  const float* x;
  const W* w;
  float* logits;
  int64_t num_tokens;
  int num_experts;
  int num_inputs;  // a multiple of kChunk

  __device__ int num_rounds() const { return (num_inputs + kRound - 1) / kRound; }
  __device__ const float* inputs_of(int64_t token) const { return x + min(token, num_tokens - 1) * num_inputs; }
  __device__ const W* weights_of(int expert) const { return w + int64_t{min(expert, num_experts - 1)} * num_inputs; }
};

// One chunk of a row; zeros beyond its end.
template <typename T>
struct Chunk;

template <int first, typename T>
__device__ __forceinline__ float4 four_of(const Chunk<T>& chunk) {
  return make_float4(chunk.template at<first>(), chunk.template at<first + 1>(), chunk.template at<first + 2>(),
                     chunk.template at<first + 3>());
}

template <>
struct Chunk<float> {
  float4 low, high;

  __device__ __forceinline__ void load(const float* row, int first, int end) {
    const auto* source = reinterpret_cast<const float4*>(row + first);
    low = first < end ? source[0] : float4{};
    high = first < end ? source[1] : float4{};
  }
  template <int i>
  __device__ __forceinline__ float at() const {
    const float4& four = i < 4 ? low : high;
    return i % 4 == 0 ? four.x : i % 4 == 1 ? four.y : i % 4 == 2 ? four.z : four.w;
  }
};

template <>
struct Chunk<__nv_bfloat16> {
  uint4 words;

  __device__ __forceinline__ void load(const __nv_bfloat16* row, int first, int end) {
    words = first < end ? *reinterpret_cast<const uint4*>(row + first) : uint4{};
  }
  template <int i>
  __device__ __forceinline__ float at() const {
    const uint32_t word = i < 2 ? words.x : i < 4 ? words.y : i < 6 ? words.z : words.w;
    return __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
  }
};

// --- Few tokens ---------------------------------------------------------------------------------------------------------------

// Tokens and experts of one half-warp, and how many rounds are loaded before they are needed.
template <int tokens, int experts, int ahead>
struct FewTile {
  static constexpr int kTokens = tokens, kExperts = experts, kAhead = ahead;
};

template <int k, typename W, int kTokens, int kExperts>
__device__ __forceinline__ void multiply_input(const Chunk<float> (&inputs)[kTokens], const Chunk<W> (&weights)[kExperts],
                                               float (&sums)[kTokens][kExperts]) {
#pragma unroll
  for (int e = 0; e < kExperts; ++e) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      sums[t][e] = fmaf(inputs[t].template at<k>(), weights[e].template at<k>(), sums[t][e]);
    }
  }
}

template <typename W, int kTokens, int kExperts>
__device__ __forceinline__ void multiply_chunk(const Chunk<float> (&inputs)[kTokens], const Chunk<W> (&weights)[kExperts],
                                               float (&sums)[kTokens][kExperts]) {
  const auto multiply_all = [&]<int... k>(std::integer_sequence<int, k...>) {
    (multiply_input<k>(inputs, weights, sums), ...);
  };
  multiply_all(std::make_integer_sequence<int, kChunk>());
}

// Weights are no earlier kernel's result: their first rounds are loaded, and the others on their way, before the wait.
template <typename W, typename Tile>
__global__ void __launch_bounds__(128) few_token_logits(LogitsArguments<W> a) {
  constexpr int kTokens = Tile::kTokens, kExperts = Tile::kExperts, kAhead = Tile::kAhead;
  const int lane = threadIdx.x % 32, slice = lane % kSlices;
  const int warp = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const int first_expert = (2 * warp + lane / kSlices) * kExperts;
  const int64_t first_token = int64_t{blockIdx.y} * kTokens;
  const auto first_input = [&](int round) { return round * kRound + slice * kChunk; };

  Chunk<W> weights[kAhead][kExperts];
  Chunk<float> inputs[kAhead][kTokens];
  const auto load_weights = [&](int round, Chunk<W>(&chunks)[kExperts]) {
#pragma unroll
    for (int e = 0; e < kExperts; ++e) chunks[e].load(a.weights_of(first_expert + e), first_input(round), a.num_inputs);
  };
  const auto load_inputs = [&](int round, Chunk<float>(&chunks)[kTokens]) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) chunks[t].load(a.inputs_of(first_token + t), first_input(round), a.num_inputs);
  };
#pragma unroll
  for (int round = 0; round < kAhead; ++round) load_weights(round, weights[round]);
  for (int k = first_input(kAhead); k < a.num_inputs; k += kRound) {
#pragma unroll
    for (int e = 0; e < kExperts; ++e) prefetch_to_l2(a.weights_of(first_expert + e) + k);
  }
  allow_next_kernel();
  wait_for_earlier_kernels();
#pragma unroll
  for (int round = 0; round < kAhead; ++round) load_inputs(round, inputs[round]);

  float sums[kTokens][kExperts] = {};
  const int num_rounds = a.num_rounds();
  for (int first_round = 0; first_round < num_rounds; first_round += kAhead) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first_round + i >= num_rounds) break;
      multiply_chunk(inputs[i], weights[i], sums);
      load_weights(first_round + i + kAhead, weights[i]);
      load_inputs(first_round + i + kAhead, inputs[i]);
    }
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
#pragma unroll
    for (int e = 0; e < kExperts; ++e) {
      float sum = sums[t][e];
#pragma unroll
      for (int distance = kSlices / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
      const int64_t token = first_token + t;
      const int expert = first_expert + e;
      const bool is_mine = slice == (t * kExperts + e) % kSlices && token < a.num_tokens && expert < a.num_experts;
      if (is_mine) a.logits[token * a.num_experts + expert] = sum;
    }
  }
}

// --- Some tokens --------------------------------------------------------------------------------------------------------------

constexpr int kTeamBlocks = kSlices / 2;  // of a cluster: block r takes slices r and r + 8
constexpr int kTeamTokens = 32, kTeamExperts = 32, kTeamThreads = 256;
constexpr int kStageRounds = 4, kStages = 4;  // 2048 inputs are under way at once

// Some rounds of a block's two slices, by 16 bytes.
template <typename W>
struct TeamStage {
  static constexpr int kWords = static_cast<int>(sizeof(W)) * kChunk / 16;

  float4 x[2][kStageRounds][2][kTeamTokens];
  uint4 w[2][kStageRounds][kWords][kTeamExperts];
};
static_assert(2 * kStageRounds * kTeamTokens % kTeamThreads == 0 && 2 * kStageRounds * kTeamExperts % kTeamThreads == 0);
template <typename W>
constexpr size_t kTeamSharedBytes = kStages * sizeof(TeamStage<W>);

// 16 bytes that begin at input `first` of a row or later; zeros beyond its end.
template <typename T, typename Word>
__device__ __forceinline__ void begin_word(const T* row, int first, int word, int end, Word& place) {
  static_assert(sizeof(Word) == 16);
  const bool exists = first < end;
  const T* const source = row + (exists ? first + word * static_cast<int>(16 / sizeof(T)) : 0);
  __pipeline_memcpy_async(&place, source, 16, exists ? 0 : 16);
}

// What a block of the cluster loads, all of its threads together.
template <typename W>
struct TeamLoads {
  const LogitsArguments<W>& a;
  int rank;
  int first_expert;
  int64_t first_token;

  __device__ __forceinline__ int first_input(int stage, int round, int half) const {
    return (stage * kStageRounds + round) * kRound + (rank + kTeamBlocks * half) * kChunk;
  }
  __device__ __forceinline__ void begin_weights(int stage, TeamStage<W>& into) const {
    constexpr int kWords = TeamStage<W>::kWords, kPerThread = 2 * kStageRounds * kWords * kTeamExperts / kTeamThreads;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int item = i * kTeamThreads + static_cast<int>(threadIdx.x);
      const int word = item % kWords, expert = item / kWords % kTeamExperts;
      const int round = item / kWords / kTeamExperts % kStageRounds, half = item / kWords / kTeamExperts / kStageRounds;
      begin_word(a.weights_of(first_expert + expert), first_input(stage, round, half), word, a.num_inputs,
                 into.w[half][round][word][expert]);
    }
  }
  __device__ __forceinline__ void begin_inputs(int stage, TeamStage<W>& into) const {
    constexpr int kPerThread = 2 * kStageRounds * 2 * kTeamTokens / kTeamThreads;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int item = i * kTeamThreads + static_cast<int>(threadIdx.x);
      const int word = item % 2, token = item / 2 % kTeamTokens;
      const int round = item / 2 / kTeamTokens % kStageRounds, half = item / 2 / kTeamTokens / kStageRounds;
      begin_word(a.inputs_of(first_token + token), first_input(stage, round, half), word, a.num_inputs,
                 into.x[half][round][word][token]);
    }
  }
};

// A warp has 16 tokens and 16 experts of one slice, a lane 4 and 2 of them.
struct TeamPlace {
  int half, token, expert;

  __device__ TeamPlace() {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    half = warp / 4;
    token = warp / 2 % 2 * 16 + lane % 4;
    expert = warp % 2 * 16 + lane / 4;
  }
  __device__ int token_of(int t) const { return token + 4 * t; }
  __device__ int expert_of(int e) const { return expert + 8 * e; }
};

template <typename W>
__device__ __forceinline__ void multiply_stage(const TeamStage<W>& stage, const TeamPlace& place, int num_rounds,
                                               float (&sums)[4][2]) {
#pragma unroll 2
  for (int round = 0; round < num_rounds; ++round) {
    Chunk<float> inputs[4];
    Chunk<W> weights[2];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      inputs[t].low = stage.x[place.half][round][0][place.token_of(t)];
      inputs[t].high = stage.x[place.half][round][1][place.token_of(t)];
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      uint4 words[TeamStage<W>::kWords];
#pragma unroll
      for (int i = 0; i < TeamStage<W>::kWords; ++i) words[i] = stage.w[place.half][round][i][place.expert_of(e)];
      memcpy(&weights[e], words, sizeof(words));
    }
    multiply_chunk(inputs, weights, sums);
  }
}

// A cluster per tile: its blocks sum two slices each, and then add up the tile of all 16 in shares.
template <typename W>
__global__ void __cluster_dims__(kTeamBlocks, 1, 1) __launch_bounds__(kTeamThreads) team_logits(LogitsArguments<W> a) {
  extern __shared__ float4 shared[];
  constexpr int kStride = kTeamExperts + 8;  // a warp's sums fill all banks
  __shared__ float slice_sums[2 * kTeamTokens * kStride];
  const auto cluster = cooperative_groups::this_cluster();
  const int rank = static_cast<int>(cluster.block_rank());
  const int first_expert = static_cast<int>(blockIdx.x) / kTeamBlocks * kTeamExperts;
  const int64_t first_token = int64_t{blockIdx.y} * kTeamTokens;
  const TeamLoads<W> loads{a, rank, first_expert, first_token};
  auto* const stages = reinterpret_cast<TeamStage<W>*>(shared);

  allow_next_kernel();
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) loads.begin_weights(stage, stages[stage]);
  wait_for_earlier_kernels();
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) {
    loads.begin_inputs(stage, stages[stage]);
    __pipeline_commit();
  }

  const TeamPlace place;
  float sums[4][2] = {};
  const int num_rounds = a.num_rounds();
  for (int stage = 0; stage * kStageRounds < num_rounds; ++stage) {
    TeamStage<W>& current = stages[stage % kStages];
    __pipeline_wait_prior(kStages - 1);
    __syncthreads();
    multiply_stage(current, place, min(kStageRounds, num_rounds - stage * kStageRounds), sums);
    if ((stage + kStages) * kStageRounds < num_rounds) {
      __syncthreads();  // all have read what is now replaced
      loads.begin_weights(stage + kStages, current);
      loads.begin_inputs(stage + kStages, current);
    }
    __pipeline_commit();
  }
  __pipeline_wait_prior(0);  // zeros, where there are fewer inputs than stages

#pragma unroll
  for (int t = 0; t < 4; ++t) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      slice_sums[(place.half * kTeamTokens + place.token_of(t)) * kStride + place.expert_of(e)] = sums[t][e];
    }
  }
  cluster.sync();
  constexpr int kShare = kTeamTokens / kTeamBlocks;
  if (threadIdx.x < kShare * kTeamExperts) {
    const int row = rank * kShare + static_cast<int>(threadIdx.x) / kTeamExperts;
    const int column = static_cast<int>(threadIdx.x) % kTeamExperts;
    float values[kSlices];
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      const float* const of_block = cluster.map_shared_rank(slice_sums, slice % kTeamBlocks);
      values[slice] = of_block[(slice / kTeamBlocks * kTeamTokens + row) * kStride + column];
    }
#pragma unroll
    for (int level = 1; (1 << level) <= kSlices; ++level) {
#pragma unroll
      for (int slice = 0; slice < kSlices / 2; ++slice) {
        if (slice < kSlices >> level) values[slice] += values[slice + (kSlices >> level)];
      }
    }
    const int64_t token = first_token + row;
    const int expert = first_expert + column;
    if (token < a.num_tokens && expert < a.num_experts) a.logits[token * a.num_experts + expert] = values[0];
  }
  cluster.sync();  // no block ends while others read its sums
}

// --- Many tokens --------------------------------------------------------------------------------------------------------------

constexpr int kTileTokens = 64, kTileExperts = 32;
constexpr int kManyThreads = 32 * kSlices;

// One chunk of the tile's rows, two halves each. Halves lie crosswise so that eight rows of one half fill all banks.
struct SliceStage {
  float4 x[kTileTokens][2];
  float4 w[kTileExperts][2];
};
__device__ __forceinline__ int place_of_half(int row, int half) { return half ^ (row / 4 % 2); }

constexpr int kSumStride = kTileExperts + 4;  // eight rows of four sums fill all banks
using SliceSums = float[kTileTokens][kSumStride];
constexpr size_t kManySharedBytes = std::max(2 * kSlices * sizeof(SliceStage), kSlices * sizeof(SliceSums));

// A lane's 8 tokens are token_of(0..7), its experts expert_of(0..7). Lanes that differ in bit 0 share their tokens, those that
// differ in bits 1 to 3 their experts: a load of either is two passes through shared memory, the fewest there are.
struct LanePlace {
  int token, expert;

  __device__ explicit LanePlace(int lane) : token(lane / 2 % 8), expert(lane / 16 * 2 + lane % 2) {}
  __device__ int token_of(int i) const { return 8 * i + token; }
  __device__ int expert_of(int i) const { return 4 * i + expert; }
};

template <int half>
__device__ __forceinline__ void multiply_half(const SliceStage& stage, const LanePlace& place, float (&sums)[8][8]) {
  float4 x[8];
#pragma unroll
  for (int t = 0; t < 8; ++t) x[t] = stage.x[place.token_of(t)][place_of_half(place.token, half)];
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    const float4 w = stage.w[place.expert_of(e)][place_of_half(4 * e, half)];
#pragma unroll
    for (int t = 0; t < 8; ++t) sums[t][e] = fmaf(x[t].x, w.x, sums[t][e]);
#pragma unroll
    for (int t = 0; t < 8; ++t) sums[t][e] = fmaf(x[t].y, w.y, sums[t][e]);
#pragma unroll
    for (int t = 0; t < 8; ++t) sums[t][e] = fmaf(x[t].z, w.z, sums[t][e]);
#pragma unroll
    for (int t = 0; t < 8; ++t) sums[t][e] = fmaf(x[t].w, w.w, sums[t][e]);
  }
}

template <typename W>
__device__ __forceinline__ void begin_inputs(const LogitsArguments<W>& a, int first, int lane, SliceStage& stage) {
#pragma unroll
  for (int i = 0; i < kTileTokens * 2 / 32; ++i) {
    const int row = (lane + 32 * i) / 2, half = lane % 2;
    const bool exists = first < a.num_inputs;
    const float* source = a.inputs_of(int64_t{blockIdx.y} * kTileTokens + row) + (exists ? first + 4 * half : 0);
    __pipeline_memcpy_async(&stage.x[row][place_of_half(row, half)], source, sizeof(float4), exists ? 0 : sizeof(float4));
  }
  __pipeline_commit();
}

template <typename W>
__device__ __forceinline__ void store_weights(const Chunk<W>& weights, int lane, SliceStage& stage) {
  stage.w[lane][place_of_half(lane, 0)] = four_of<0>(weights);
  stage.w[lane][place_of_half(lane, 1)] = four_of<4>(weights);
}

// Of four neighbouring sums: slice + distance · 0, 1, 2, ... as a tree.
template <int slice, int distance>
__device__ __forceinline__ float4 sum_of_slices(const SliceSums* partial, int row, int column) {
  if constexpr (distance == kSlices) {
    return *reinterpret_cast<const float4*>(&partial[slice][row][column]);
  } else {
    const float4 a = sum_of_slices<slice, 2 * distance>(partial, row, column);
    const float4 b = sum_of_slices<slice + distance, 2 * distance>(partial, row, column);
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
  }
}

template <typename W>
__global__ void __launch_bounds__(kManyThreads, 1) many_token_logits(LogitsArguments<W> a) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x % 32, slice = threadIdx.x / 32;
  SliceStage* const stages = reinterpret_cast<SliceStage*>(shared) + 2 * slice;
  const LanePlace place(lane);
  const W* const weight_row = a.weights_of(blockIdx.x * kTileExperts + lane);
  const int num_rounds = a.num_rounds();

  allow_next_kernel();
  Chunk<W> weights;
  weights.load(weight_row, slice * kChunk, a.num_inputs);
  store_weights(weights, lane, stages[0]);
  wait_for_earlier_kernels();
  begin_inputs(a, slice * kChunk, lane, stages[0]);
  __pipeline_wait_prior(0);
  __syncwarp();

  float sums[8][8] = {};
  for (int round = 0; round < num_rounds; ++round) {
    const int next = (round + 1) * kRound + slice * kChunk;
    const bool has_next = round + 1 < num_rounds;
    if (has_next) {
      begin_inputs(a, next, lane, stages[(round + 1) % 2]);
      weights.load(weight_row, next, a.num_inputs);
    }
    multiply_half<0>(stages[round % 2], place, sums);
    multiply_half<1>(stages[round % 2], place, sums);
    if (has_next) store_weights(weights, lane, stages[(round + 1) % 2]);
    __pipeline_wait_prior(0);
    __syncwarp();
  }

  __syncthreads();  // the sums take the place of the stages
  auto* const partial = reinterpret_cast<SliceSums*>(shared);
#pragma unroll
  for (int t = 0; t < 8; ++t) {
#pragma unroll
    for (int e = 0; e < 8; ++e) partial[slice][place.token_of(t)][place.expert_of(e)] = sums[t][e];
  }
  __syncthreads();
  const int row = threadIdx.x / 8, column = threadIdx.x % 8 * 4;
  const int64_t token = int64_t{blockIdx.y} * kTileTokens + row;
  if (token >= a.num_tokens) return;
  const float4 total = sum_of_slices<0, 1>(partial, row, column);
  const float values[4] = {total.x, total.y, total.z, total.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int expert = blockIdx.x * kTileExperts + column + i;
    if (expert < a.num_experts) a.logits[token * a.num_experts + expert] = values[i];
  }
}
static_assert(kManyThreads == kTileTokens * kTileExperts / 4);

// --- Launches -----------------------------------------------------------------------------------------------------------------

constexpr int64_t kMultiprocessors = 128;  // about: only times depend on it

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// As many warps a block as leave a block for each multiprocessor, because warps of a block share the tokens' lines.
template <typename Tile, typename W>
void launch_few(const LogitsArguments<W>& a, Stream& stream) {
  const int64_t token_tiles = ceil_div(a.num_tokens, Tile::kTokens);
  const int64_t expert_tiles = ceil_div(a.num_experts, 2 * Tile::kExperts);
  const int64_t warps = std::clamp<int64_t>(token_tiles * expert_tiles / kMultiprocessors, 1, std::min<int64_t>(4, expert_tiles));
  const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div(expert_tiles, warps)), static_cast<unsigned>(token_tiles)),
                          dim3(static_cast<unsigned>(32 * warps))};
  launch(few_token_logits<W, Tile>, shape, stream, a);
}

template <typename W>
void launch_many(const LogitsArguments<W>& a, Stream& stream) {
  static const cudaError_t raised = cudaFuncSetAttribute(
      many_token_logits<W>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kManySharedBytes));
  CUDA_CHECK(raised);
  const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div(a.num_experts, kTileExperts)),
                               static_cast<unsigned>(ceil_div(a.num_tokens, kTileTokens))),
                          dim3(kManyThreads), kManySharedBytes};
  launch(many_token_logits<W>, shape, stream, a);
}

template <typename W>
void launch_team(const LogitsArguments<W>& a, Stream& stream) {
  static const cudaError_t raised = cudaFuncSetAttribute(team_logits<W>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                         static_cast<int>(kTeamSharedBytes<W>));
  CUDA_CHECK(raised);
  const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div(a.num_experts, kTeamExperts) * kTeamBlocks),
                               static_cast<unsigned>(ceil_div(a.num_tokens, kTeamTokens))),
                          dim3(kTeamThreads), kTeamSharedBytes<W>};
  launch(team_logits<W>, shape, stream, a);
}

template <typename W>
void launch_logits(const LogitsArguments<W>& a, Stream& stream) {
  const int64_t num_tiles = ceil_div(a.num_tokens, kTileTokens) * ceil_div(a.num_experts, kTileExperts);
  if (num_tiles >= kMultiprocessors / 2) return launch_many(a, stream);
  if (a.num_tokens > 48) return launch_team(a, stream);
  if (a.num_tokens > 12) return launch_few<FewTile<4, 2, 3>>(a, stream);
  if (a.num_tokens > 1) return launch_few<FewTile<4, 1, 4>>(a, stream);
  launch_few<FewTile<1, 1, 8>>(a, stream);
}

}  // namespace

void router_logits(const Tensor& x, const Tensor& w, Tensor& logits, Stream& stream) {
  check_rank("router_logits", logits, 2);
  check_rank("router_logits", w, 2);
  const int64_t num_tokens = logits.dim(0), num_experts = logits.dim(1), num_inputs = w.dim(1);
  check_operand("router_logits", x, DType::kF32, {num_tokens, num_inputs});
  check_operand("router_logits", w, w.dtype(), {num_experts, num_inputs});
  check_operand("router_logits", logits, DType::kF32, {num_tokens, num_experts});
  CHECK_EQ(num_inputs % kChunk, 0) << "router_logits: rows of whole chunks of " << kChunk;
  if (logits.num_elements() == 0) return;
  const auto launch_with = [&](const auto* weights) {
    using W = std::remove_cvref_t<decltype(*weights)>;
    launch_logits(LogitsArguments<W>{x.data<float>(), weights, logits.data<float>(), num_tokens,
                                     static_cast<int>(num_experts), static_cast<int>(num_inputs)},
                  stream);
  };
  if (w.dtype() == DType::kBF16) return launch_with(reinterpret_cast<const __nv_bfloat16*>(w.bytes()));
  launch_with(w.data<float>());
}

}  // namespace skipper::cuda

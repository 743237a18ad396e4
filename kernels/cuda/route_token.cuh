// How one warp routes one token: the k largest of its logits, the rules of skipping, and the tally.
//
// Lane j holds slot j of the token's choices, and what a rule sums over slots is summed in slot order by every lane.
// Every rounding is that of the CPU: exponentials by the same polynomial, products and sums not fused, sums over experts by 16
// lanes and a tree. So a token's ids, weights and skipped pairs have the bits of kernels/top_k_softmax.h and
// expert_parallel/expert_skipping.h on the same logits, and a fractional kept_k takes the same tokens.
#pragma once

#include <glog/logging.h>

#include <cstdint>

#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/routing.h"

namespace skipper::cuda {

inline constexpr int kMaxSlots = 16;
inline constexpr int64_t kMaxExperts = 1024;
inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr int kNumClasses = 3, kNumPhases = 2, kNumOutcomes = 2;
inline constexpr int kNumCounts = kNumPhases * kNumClasses * kNumOutcomes;
inline constexpr int kUsageColumns = 4;

// PairRule of cluster/operating_point.h.
inline constexpr int32_t kScore = 0, kTopK = 1, kTailMass = 2, kRelative = 3;
inline constexpr int32_t kSumOfSquares = 0;  // DestinationScore

struct RouteArguments {
  const float* logits;
  const uint8_t* token_class;
  const uint8_t* level;
  const uint8_t* phase;
  const int32_t* step_token;
  const SkipRow* skip_rows;
  const float* expert_scale;  // null: 1
  const int32_t* rank_of_expert;
  const int32_t* hop_of_rank;
  int32_t* expert_ids;
  int32_t* routed_ids;
  float* expert_weights;
  int32_t* usage;
  unsigned long long* pair_counts;
  unsigned long long* expert_loads;  // null: not counted
  float* routed_weights;             // null: not wanted
  int64_t num_tokens;
  int num_skip_rows;
  int num_scales;  // of all levels
  int num_experts;
  int top_k;
  int own_rank;
  TopKNormalization normalization;
};

__device__ __forceinline__ float from_lane(float value, int lane) { return __shfl_sync(kAllLanes, value, lane); }

// --- What is read -------------------------------------------------------------------------------------------------------------

// With few tokens this kernel's time is that of its loads one after the other, most of them from lines that the weights of a
// layer have driven out of the L2 cache. So lines are asked for before the earlier kernels have ended, and afterwards all that
// does not depend on something else is loaded at once.
// Line `index` of memory, if there is one.
__device__ __forceinline__ void prefetch_line(const void* memory, int64_t num_bytes, int index) {
  constexpr int kLineBytes = 128;
  if (int64_t{index} * kLineBytes < num_bytes) prefetch_to_l2(static_cast<const char*>(memory) + index * kLineBytes);
}

__device__ __forceinline__ void prefetch_tables(const RouteArguments& a, int lane) {
  prefetch_line(a.skip_rows, int64_t{sizeof(SkipRow)} * a.num_skip_rows, lane);
  prefetch_line(a.expert_scale, int64_t{sizeof(float)} * a.num_scales, lane);
  prefetch_line(a.pair_counts, sizeof(*a.pair_counts) * kNumCounts, lane);
  if (a.expert_loads != nullptr) prefetch_line(a.expert_loads, sizeof(*a.expert_loads) * kNumClasses * a.num_experts, lane);
}

__device__ __forceinline__ void prefetch_token(const RouteArguments& a, int64_t token, int lane) {
  if (lane == 0) prefetch_to_l2(a.token_class + token);
  if (lane == 1) prefetch_to_l2(a.level + token);
  if (lane == 2) prefetch_to_l2(a.phase + token);
  if (lane == 3) prefetch_to_l2(a.step_token + token);
}

// Loads that stay where they are written: others wait for the branch that needs them.
__device__ __forceinline__ int load_now(const uint8_t* address) {
  int value;
  asm volatile("ld.global.u8 %0, [%1];" : "=r"(value) : "l"(address));
  return value;
}
__device__ __forceinline__ int32_t load_now(const int32_t* address) {
  int32_t value;
  asm volatile("ld.global.s32 %0, [%1];" : "=r"(value) : "l"(address));
  return value;
}

// Padding is routed as a token of class 0, and told apart where results are written: no load waits for that.
struct TokenFacts {
  int token_class;
  int level;
  int phase;
  int32_t step_token;
  bool is_padding;

  __device__ __forceinline__ TokenFacts(const RouteArguments& a, int64_t token)
      : token_class(load_now(a.token_class + token)),
        level(load_now(a.level + token)),
        phase(load_now(a.phase + token)),
        step_token(load_now(a.step_token + token)),
        is_padding(token_class >= kNumClasses) {
    if (is_padding) token_class = level = phase = 0;
  }
};

// Where an expert lives, from tables that no kernel writes.
struct Home {
  int32_t rank;
  int32_t hop;
};

__device__ __forceinline__ void load_homes(const RouteArguments& a, Home* homes) {
#pragma unroll 1
  for (int expert = threadIdx.x; expert < a.num_experts; expert += static_cast<int>(blockDim.x)) {
    const int32_t rank = a.rank_of_expert[expert];
    homes[expert] = {rank, a.hop_of_rank[rank]};
  }
}

// --- Softmax over the largest -------------------------------------------------------------------------------------------------

// Larger logits have larger keys; NaN has the lowest, which is still above 0.
__device__ __forceinline__ uint32_t key_of(float logit) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);  // −0 and +0 are equal: both become +0
  const uint32_t ordered = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  return (bits & 0x7fffffffu) > 0x7f800000u ? 1u : ordered;
}

// e^x for x <= 0, operation by operation that of kernels/cpu/simd.h.
__device__ __forceinline__ float exponential(float x) {
  constexpr float kSmallest = -85.9f, kRound = 12582912.0f;  // 1.5 · 2^23
  const float clamped = x < kSmallest ? kSmallest : x;
  const float shifted = __fadd_rn(__fmul_rn(clamped, 1.44269504f), kRound);
  const float n = __fsub_rn(shifted, kRound);
  const float r = __fsub_rn(__fsub_rn(clamped, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, -2.12194440e-4f));
  constexpr float kCoefficients[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  float p = 1.0f / 5040;
#pragma unroll
  for (const float coefficient : kCoefficients) p = __fadd_rn(__fmul_rn(p, r), coefficient);
  const uint32_t scaled = __float_as_uint(p * 0.5f) + (__float_as_uint(shifted) << 23);
  return x < kSmallest ? 0.0f : __uint_as_float(scaled) * 2.0f;
}

__device__ __forceinline__ float largest_of_warp(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

__device__ __forceinline__ float without_nan(float logit) { return isnan(logit) ? -INFINITY : logit; }

// Logits against their maximum. An infinite one would give ∞ − ∞: its experts share evenly instead.
struct Shift {
  float largest;

  __device__ __forceinline__ float exponential_of(float logit) const {
    const float score = without_nan(logit);
    if (isinf(largest)) return score == largest ? 1.0f : 0.0f;
    return exponential(__fsub_rn(score, largest));
  }
};

// Σ value of slots 0 .. top_k − 1, in that order.
__device__ __forceinline__ float sum_of_slots(float value, int top_k) {
  float sum = 0.0f;
  for (int j = 0; j < top_k; ++j) sum = __fadd_rn(sum, from_lane(value, j));
  return sum;
}

// The experts of one token, lane + 32 · i in each lane.
template <int kPerLane>
struct Experts {
  float logits[kPerLane];  // −∞ beyond the experts
  int lane;
  int num_experts;

  __device__ __forceinline__ Experts(const float* row, int own_lane, int count) : lane(own_lane), num_experts(count) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) logits[i] = exists(i) ? row[lane + 32 * i] : -INFINITY;
  }
  __device__ __forceinline__ bool exists(int i) const { return lane + 32 * i < num_experts; }

  // The expert of this lane's slot, −1 in lanes from top_k on.
  __device__ __forceinline__ int32_t choose(int top_k) const {
    uint32_t keys[kPerLane];
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) keys[i] = exists(i) ? key_of(logits[i]) : 0;
    int32_t chosen = -1;
    for (int slot = 0; slot < top_k; ++slot) {
      uint32_t own = 0;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) own = max(own, keys[i]);
      const uint32_t largest = __reduce_max_sync(kAllLanes, own);
      int own_first = num_experts;  // found while the lanes' largest are compared
#pragma unroll
      for (int i = kPerLane - 1; i >= 0; --i) own_first = keys[i] == own ? lane + 32 * i : own_first;
      const int first = __reduce_min_sync(kAllLanes, own == largest ? own_first : num_experts);
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) keys[i] = lane + 32 * i == first ? 0 : keys[i];
      chosen = lane == slot ? first : chosen;
    }
    return chosen;
  }

  __device__ __forceinline__ Shift shift() const {
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) largest = fmaxf(largest, without_nan(logits[i]));
    return {largest_of_warp(largest)};
  }

  // Experts by their number modulo 16, ascending, then a tree.
  __device__ __forceinline__ float sum_of_exponentials(const Shift& shift) const {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const float e = exists(i) ? shift.exponential_of(logits[i]) : 0.0f;
      sum = __fadd_rn(__fadd_rn(sum, e), __shfl_down_sync(kAllLanes, e, 16));
    }
#pragma unroll
    for (int distance = 8; distance > 0; distance /= 2) sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, distance));
    return from_lane(sum, 0);  // only the lower half has the order
  }
};

template <int kPerLane>
__device__ __forceinline__ float weight_of_slot(const Experts<kPerLane>& experts, float chosen_logit, const RouteArguments& a) {
  const bool is_slot = experts.lane < a.top_k;
  if (a.normalization == TopKNormalization::kNone) {
    const Shift shift = experts.shift();
    const float total = experts.sum_of_exponentials(shift);
    return is_slot ? __fdiv_rn(shift.exponential_of(chosen_logit), total) : 0.0f;
  }
  const Shift shift{largest_of_warp(is_slot ? without_nan(chosen_logit) : -INFINITY)};
  const float e = is_slot ? shift.exponential_of(chosen_logit) : 0.0f;
  const float total = sum_of_slots(e, a.top_k);
  return is_slot ? __fdiv_rn(e, total) : 0.0f;
}

// --- The rules ----------------------------------------------------------------------------------------------------------------

// A lane's slot of the token; all fields but those of lanes are the same in the whole warp.
struct TokenSlots {
  int lane;
  int top_k;
  int32_t expert;  // −1 in lanes from top_k on
  int32_t rank;    // that owns it; −1
  float weight;
  float sum;    // of all weights
  float share;  // p: weight / (sum + 1e-20)
  bool is_own;

  __device__ __forceinline__ bool is_slot() const { return lane < top_k; }
};

__device__ __forceinline__ bool may_skip(const SkipRow& row) {
  const float threshold = row.pair_rule == kScore ? row.tau : row.pair_rule == kTopK ? row.kept_k : row.beta;
  return threshold > 0.0f || row.tau_dst[1] > 0.0f || row.tau_dst[2] > 0.0f;
}

__device__ __forceinline__ bool keeps_all_pairs(const TokenSlots& slots, const SkipRow& row) {
  if (!may_skip(row) || !isfinite(slots.sum)) return true;
  if (row.protect_margin == 0.0f) return false;
  const float first = from_lane(slots.share, 0), second = from_lane(slots.share, 1);
  return __fsub_rn(first, slots.top_k > 1 ? second : 0.0f) < row.protect_margin;
}

// The finalizer of SplitMix64, as in expert_parallel/pair_rule.cc.
__device__ __forceinline__ uint64_t mix(uint64_t bits) {
  bits += 0x9e3779b97f4a7c15;
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111eb;
  return bits ^ (bits >> 31);
}

__device__ __forceinline__ int num_kept_slots(const TokenSlots& slots, float kept_k) {
  uint64_t hash = 0;
  for (int j = 0; j < slots.top_k; ++j) hash = mix(hash ^ __float_as_uint(from_lane(slots.weight, j)));
  const float own_fraction = static_cast<float>(hash >> 40) * 0x1p-24f;
  const float whole = floorf(kept_k);
  return static_cast<int>(fminf(whole, kMaxSlots)) + (own_fraction < __fsub_rn(kept_k, whole) ? 1 : 0);
}

// The first slot that is skipped with all after it.
__device__ __forceinline__ int tail_begin(const TokenSlots& slots, float beta) {
  int begin = slots.top_k;
  float mass = 0.0f;
  while (begin > 0) {
    mass = begin == 1 ? 1.0f : __fadd_rn(mass, from_lane(slots.share, begin - 1));
    if (!(mass < beta)) break;
    --begin;
  }
  return begin;
}

// Whether the pair rule takes this lane's pair, protection aside. `scale`: of the lane's expert.
__device__ __forceinline__ bool is_small(const TokenSlots& slots, const SkipRow& row, float scale) {
  switch (row.pair_rule) {
    case kScore: return __fmul_rn(__fmul_rn(row.alpha, slots.share), scale) < row.tau;
    case kTopK: return row.kept_k > 0.0f && slots.lane >= num_kept_slots(slots, row.kept_k);
    case kTailMass: return row.beta > 0.0f && slots.lane >= tail_begin(slots, row.beta);
    case kRelative: return slots.share < __fmul_rn(row.beta, from_lane(slots.share, 0));
    default: return false;
  }
}

// Whether this lane's pair goes with its destination. `kept`: lanes whose pairs are left, this one among them or not.
__device__ __forceinline__ bool is_cheap_destination(const TokenSlots& slots, const SkipRow& row, unsigned kept, float tau) {
  float sum = 0.0f;
  bool is_spared = false;
  for (int j = 0; j < slots.top_k; ++j) {
    const float share = from_lane(slots.share, j);
    const int32_t rank = __shfl_sync(kAllLanes, slots.rank, j);
    if ((kept >> j & 1) == 0 || rank != slots.rank) continue;
    sum = __fadd_rn(sum, row.destination_score == kSumOfSquares ? __fmul_rn(share, share) : share);
    is_spared = is_spared || (row.protect_top1 != 0 && j == 0);
  }
  return !slots.is_own && tau != 0.0f && !is_spared && __fmul_rn(row.alpha, sum) < tau;
}

// Lanes whose pairs run.
__device__ __forceinline__ unsigned kept_lanes(const TokenSlots& slots, const SkipRow& row, float scale, int hop) {
  const unsigned routed = __ballot_sync(kAllLanes, slots.is_slot());
  if (keeps_all_pairs(slots, row)) return routed;
  const bool is_spared = (row.protect_top1 != 0 && slots.lane == 0) || (row.exempt_local != 0 && slots.is_own);
  const bool is_skipped = is_small(slots, row, scale) && !is_spared;
  const unsigned kept = __ballot_sync(kAllLanes, slots.is_slot() && !is_skipped);
  const float tau = hop == 0 ? row.tau_dst[0] : hop == 1 ? row.tau_dst[1] : row.tau_dst[2];
  const bool goes = is_cheap_destination(slots, row, kept, tau);
  return __ballot_sync(kAllLanes, (kept >> slots.lane & 1) != 0 && !goes);
}

// Survivors sum to what all summed to, unless none or all survive.
__device__ __forceinline__ float renormalized(const TokenSlots& slots, bool is_kept) {
  const float kept_sum = sum_of_slots(is_kept ? slots.weight : 0.0f, slots.top_k);
  return kept_sum > 0.0f ? __fmul_rn(slots.weight, __fdiv_rn(slots.sum, kept_sum)) : slots.weight;
}

// --- The tally ----------------------------------------------------------------------------------------------------------------

// Hidden rows that pairs of these lanes send to other ranks.
__device__ __forceinline__ int num_rows_sent(const TokenSlots& slots, unsigned lanes) {
  if ((__ballot_sync(kAllLanes, !slots.is_own) & lanes) == 0) return 0;
  const unsigned at_rank = __match_any_sync(kAllLanes, slots.rank) & lanes;
  const bool is_first = at_rank != 0 && slots.lane == __ffs(at_rank) - 1;
  return __popc(__ballot_sync(kAllLanes, is_first && !slots.is_own));
}

// `counts`: of this block.
__device__ __forceinline__ void count_token(const RouteArguments& a, const TokenFacts& facts, const TokenSlots& slots,
                                            unsigned kept, int* counts) {
  const unsigned routed = __ballot_sync(kAllLanes, slots.is_slot());
  const int num_run = __popc(kept), num_skipped = slots.top_k - num_run;
  const int num_sent = num_rows_sent(slots, kept), num_saved = num_rows_sent(slots, routed) - num_sent;
  const int lane = slots.lane;
  const int of_column = lane == 0 ? num_run : lane == 1 ? num_skipped : lane == 2 ? num_sent : num_saved;
  if (lane < kUsageColumns && of_column != 0 && facts.step_token >= 0) {
    atomicAdd(a.usage + int64_t{facts.step_token} * kUsageColumns + lane, of_column);
  }
  if (lane < kNumOutcomes) {
    atomicAdd(counts + (facts.phase * kNumClasses + facts.token_class) * kNumOutcomes + lane, of_column);
  }
  if ((kept >> lane & 1) != 0 && a.expert_loads != nullptr) {
    atomicAdd(a.expert_loads + facts.token_class * a.num_experts + slots.expert, 1ull);
  }
}

// What became of one token; a lane has the fields of its slot.
struct RoutedToken {
  TokenFacts facts;
  TokenSlots slots;
  unsigned kept;  // lanes whose pairs run; none of padding
  float weight;

  // −1: none, or skipped.
  __device__ __forceinline__ int32_t expert_that_runs() const { return (kept >> slots.lane & 1) != 0 ? slots.expert : -1; }
};

// `logits`: of the token. All lanes of a warp call it together.
template <int kPerLane>
__device__ __forceinline__ RoutedToken route_token(const RouteArguments& a, int64_t token, const float* logits,
                                                   const Home* homes) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const TokenFacts facts(a, token);
  const Experts<kPerLane> experts(logits, lane, a.num_experts);
  const SkipRow row = a.skip_rows[(facts.level * kNumClasses + facts.token_class) * kNumPhases + facts.phase];

  TokenSlots slots{.lane = lane, .top_k = a.top_k};
  slots.expert = experts.choose(a.top_k);
  const int32_t expert = max(slots.expert, 0);
  const Home home = homes[expert];
  const float scale = a.expert_scale == nullptr ? 1.0f : a.expert_scale[int64_t{facts.level} * a.num_experts + expert];
  slots.rank = slots.is_slot() ? home.rank : -1;
  slots.is_own = home.rank == a.own_rank;
  slots.weight = weight_of_slot(experts, logits[expert], a);
  slots.sum = sum_of_slots(slots.weight, a.top_k);
  slots.share = __fdiv_rn(slots.weight, __fadd_rn(slots.sum, 1e-20f));
  if (facts.is_padding) return {facts, slots, 0, 0.0f};

  const unsigned kept = kept_lanes(slots, row, scale, home.hop);
  const bool is_kept = (kept >> lane & 1) != 0;
  const bool has_lost = __popc(kept) < a.top_k;
  const float weight = has_lost && row.renormalize != 0 ? renormalized(slots, is_kept) : slots.weight;
  return {facts, slots, kept, weight};
}

// `counts`: of this block.
__device__ __forceinline__ void write_routed(const RouteArguments& a, int64_t token, const RoutedToken& routed, int* counts) {
  const TokenSlots& slots = routed.slots;
  if (slots.is_slot()) {
    const int64_t at = token * a.top_k + slots.lane;
    a.expert_ids[at] = routed.expert_that_runs();
    a.routed_ids[at] = routed.facts.is_padding ? -1 : slots.expert;
    a.expert_weights[at] = routed.weight;
    if (a.routed_weights != nullptr) a.routed_weights[at] = slots.weight;
  }
  if (!routed.facts.is_padding) count_token(a, routed.facts, slots, routed.kept, counts);
}

// counts [kNumCounts] of this block, complete, to those of the layer.
__device__ __forceinline__ void add_counts(const RouteArguments& a, const int* counts) {
  if (threadIdx.x >= kNumCounts || counts[threadIdx.x] == 0) return;
  atomicAdd(a.pair_counts + threadIdx.x, static_cast<unsigned long long>(counts[threadIdx.x]));
}

// --- Launches -----------------------------------------------------------------------------------------------------------------

inline void check_route_input(const RouteInput& input, int64_t num_tokens, int64_t num_experts) {
  check_operand("route_tokens", input.token_class, DType::kU8, {num_tokens});
  check_operand("route_tokens", input.level, DType::kU8, {num_tokens});
  check_operand("route_tokens", input.phase, DType::kU8, {num_tokens});
  check_operand("route_tokens", input.step_token, DType::kI32, {num_tokens});
  check_rank("route_tokens", input.skip_rows, 2);
  check_operand("route_tokens", input.skip_rows, DType::kU8, {input.skip_rows.dim(0), int64_t{sizeof(SkipRow)}});
  check_operand("route_tokens", input.rank_of_expert, DType::kI32, {num_experts});
  check_operand("route_tokens", input.hop_of_rank, DType::kI32, {input.world_size});
  if (!input.expert_scale.defined()) return;
  check_rank("route_tokens", input.expert_scale, 2);
  check_operand("route_tokens", input.expert_scale, DType::kF32, {input.expert_scale.dim(0), num_experts});
}

inline void check_route_output(const RouteOutput& output, int64_t num_tokens, int64_t top_k, int64_t num_experts) {
  check_operand("route_tokens", output.expert_ids, DType::kI32, {num_tokens, top_k});
  check_operand("route_tokens", output.routed_ids, DType::kI32, {num_tokens, top_k});
  check_operand("route_tokens", output.expert_weights, DType::kF32, {num_tokens, top_k});
  check_rank("route_tokens", output.usage, 2);
  check_operand("route_tokens", output.usage, DType::kI32, {output.usage.dim(0), kUsageColumns});
  check_operand("route_tokens", output.pair_counts, DType::kI64, {kNumPhases, kNumClasses, kNumOutcomes});
  const Tensor &loads = output.expert_loads, &weights = output.routed_weights;
  if (loads.defined()) check_operand("route_tokens", loads, DType::kI64, {kNumClasses, num_experts});
  if (weights.defined()) check_operand("route_tokens", weights, DType::kF32, {num_tokens, top_k});
}

template <typename T>
T* address_if_wanted(Tensor tensor) {
  return tensor.defined() ? tensor.data<T>() : nullptr;
}

// Checks all but the logits, whose address is left to the caller.
inline RouteArguments route_arguments(const RouteInput& input, const RouteOutput& output) {
  check_rank("route_tokens", output.expert_ids, 2);
  const int64_t num_tokens = output.expert_ids.dim(0), top_k = output.expert_ids.dim(1);
  const int64_t num_experts = input.rank_of_expert.num_elements();
  check_route_input(input, num_tokens, num_experts);
  check_route_output(output, num_tokens, top_k, num_experts);
  CHECK(top_k > 0 && top_k <= kMaxSlots && top_k <= num_experts && num_experts <= kMaxExperts)
      << "route_tokens: top " << top_k << " of " << num_experts;
  return {.logits = nullptr,
          .token_class = input.token_class.data<uint8_t>(),
          .level = input.level.data<uint8_t>(),
          .phase = input.phase.data<uint8_t>(),
          .step_token = input.step_token.data<int32_t>(),
          .skip_rows = reinterpret_cast<const SkipRow*>(input.skip_rows.bytes()),
          .expert_scale = input.expert_scale.defined() ? input.expert_scale.data<float>() : nullptr,
          .rank_of_expert = input.rank_of_expert.data<int32_t>(),
          .hop_of_rank = input.hop_of_rank.data<int32_t>(),
          .expert_ids = output.expert_ids.data<int32_t>(),
          .routed_ids = output.routed_ids.data<int32_t>(),
          .expert_weights = output.expert_weights.data<float>(),
          .usage = output.usage.data<int32_t>(),
          .pair_counts = reinterpret_cast<unsigned long long*>(output.pair_counts.data<int64_t>()),
          .expert_loads = reinterpret_cast<unsigned long long*>(address_if_wanted<int64_t>(output.expert_loads)),
          .routed_weights = address_if_wanted<float>(output.routed_weights),
          .num_tokens = num_tokens,
          .num_skip_rows = static_cast<int>(input.skip_rows.dim(0)),
          .num_scales = input.expert_scale.defined() ? static_cast<int>(input.expert_scale.num_elements()) : 0,
          .num_experts = static_cast<int>(num_experts),
          .top_k = static_cast<int>(top_k),
          .own_rank = input.own_rank,
          .normalization = input.normalization};
}

}  // namespace skipper::cuda

// From normed rows to expert choices on a GPU: router logits, the k largest, skipping, and the tally of what was skipped.
#pragma once

#include "kernels/top_k_softmax.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// logits[t][e] = Σ_k x[t][k] · w[e][k] in FP32, serial order fixed by K alone: a row's bits do not depend on the others.
// x [T, H] f32 · w [E, H] bf16 or f32 · logits [T, E] f32
void router_logits(const Tensor& x, const Tensor& w, Tensor& logits, Stream& stream);

// Thresholds are data on the GPU, so changing them needs no new graph. One row per (level, class, phase) of one layer:
// index (level · 3 + class) · 2 + phase with TokenClass and TokenPhase as in cluster/token_class.h. Fields mean what
// expert_parallel/token_rules.h says of TokenRules; the whole row 0 skips nothing.
struct SkipRow {
  int32_t pair_rule = 0;  // PairRule
  float alpha = 0.0f;
  float tau = 0.0f;
  float kept_k = 0.0f;
  float beta = 0.0f;
  float tau_dst[3] = {0.0f, 0.0f, 0.0f};  // by hop
  int32_t destination_score = 0;          // DestinationScore
  float protect_margin = 0.0f;
  int32_t exempt_local = 0;
  int32_t protect_top1 = 0;
  int32_t renormalize = 0;
};

struct RouteInput {
  const Tensor& logits;           // [T, E] f32
  const Tensor& token_class;      // [T] u8; 255 = padding row: all its ids become −1 and nothing is counted
  const Tensor& level;            // [T] u8
  const Tensor& phase;            // [T] u8
  const Tensor& step_token;       // [T] i32, row of `usage`
  const Tensor& skip_rows;        // [rows] SkipRow as u8 [rows, sizeof(SkipRow)]
  const Tensor& expert_scale;     // [levels, E] f32, or undefined: 1
  const Tensor& rank_of_expert;   // [E] i32
  const Tensor& hop_of_rank;      // [world] i32 (Hop)
  int own_rank = 0;
  int world_size = 1;
  TopKNormalization normalization = TopKNormalization::kSumToOne;
};
struct RouteOutput {
  Tensor& expert_ids;      // [T, k] i32 after skipping, −1 = none
  Tensor& routed_ids;      // [T, k] i32 before skipping
  Tensor& expert_weights;  // [T, k] f32
  Tensor& usage;           // [tokens of the step, 4] i32, UsageColumn; added to
  Tensor& pair_counts;     // [phase 2][class 3][outcome 2] i64 of this layer; added to
  Tensor expert_loads = {};    // [class 3][E] i64 of this layer: pairs that run; added to. Undefined: not counted
  Tensor routed_weights = {};  // [T, k] f32 as the router gave them. Undefined: not wanted
};
// Top-k of softmax as kernels/top_k_softmax.h (same order, ties, NaN), then the pair rule, the destination rule, protection and
// renormalisation, in the order of expert_parallel/expert_skipping.h. k <= 16, E <= 1024. One kernel.
void route_tokens(const RouteInput& input, const RouteOutput& output, Stream& stream);

}  // namespace skipper::cuda

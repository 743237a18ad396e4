// Leaves out the (token, expert) pairs that matter least, before anything is sent: the order of the rules, and nothing else.
#pragma once

#include <cstdint>
#include <span>

#include "cluster/cluster_topology.h"
#include "cluster/operating_point.h"
#include "comm/communicator.h"
#include "expert_parallel/decode_experts.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/rank_capacity.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"
#include "expert_parallel/token_rules.h"
#include "expert_parallel/traffic_counters.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// What skipping writes for one micro-batch; nothing is allocated once a batch of full size was seen.
struct SkippingBuffers {
  SkippingBuffers(int64_t max_tokens, int64_t top_k);

  Tensor kept_ids;      // [max_tokens, top_k] i32
  Tensor kept_weights;  // [max_tokens, top_k] f32, used where a level renormalizes
  DecodeExperts decode_experts;
  RankLoad rank_load;
};

// What the layers of a rank share. All references outlive ExpertSkipping; `levels` may change between steps.
struct SkippingContext {
  const LevelTable& levels;
  const ExpertPlacement& placement;
  const ClusterTopology& topology;
  Communicator& data;  // used by rank_capacity alone
};

struct LayerIndex {
  int layer = 0;      // among all decoder layers, for messages
  int moe_layer = 0;  // among the MoE layers
};

// The rules of one token and of the owners of its experts, in their order: what is decided whatever else is in the batch.
// `kept_ids` gets the surviving ids, those of shadows
// for pairs that run on one, kNoExpert for the others. Pure.
void apply_token_rules(const TokenPairs& routed, const TokenRules& rules, const Destinations& destinations,
                       std::span<int32_t> kept_ids);

// What every token of a micro-batch may skip under its own level, class and phase, rule by rule:
//
//   of the token alone            pair rule (pair_rule.h): MoDES' s = alpha · p < tau, reduced k, tail mass, relative
//   of the token and the owners   exempt_local; destination rule (destination_rule.h); shadow rule (shadow_rule.h)
//   of the batch                  decode rules (decode_experts.h), then rank_capacity (rank_capacity.h)
//   of what is left               renormalize (kept_weights.h)
//
// All in FP32 and strict, so a threshold of 0 skips nothing. Protected tokens never lose a pair, nor do tokens whose level skips
// nothing, whatever the others beside them do. A token whose weights are NaN or infinite keeps all its pairs and weights: its
// output would be no number either way, and no rule can say what is small. Survivors keep their weights unless the level
// renormalizes. A token with identity_bypass loses all pairs of the layer and gets its own input for them.
// Engine thread only.
class ExpertSkipping {
 public:
  ExpertSkipping(const SkippingContext& context, const LayerIndex& index);

  // Returns `routed` itself when no token of the batch has a threshold; otherwise views of `buffers` with the surviving ids.
  // `routed` is not changed. Counts pairs run and skipped by class. A collective iff any level has a rank_capacity.
  Routing apply(const Routing& routed, const TokenPolicies& policies, SkippingBuffers& buffers, TrafficCounters& counters,
                Stream& stream) const;

  // out [T, H] f32 += hidden [T, H] f32 for the tokens whose level bypasses this layer by identity.
  void add_bypassed(const Tensor& hidden, const TokenPolicies& policies, Tensor& out) const;

 private:
  bool any_token_may_skip(const TokenPolicies& policies) const;
  void limit_load(const SkipBatch& batch, RankLoad& load, Stream& stream) const;
  Destinations destinations() const;

  SkippingContext context_;
  LayerIndex index_;
};

}  // namespace skipper

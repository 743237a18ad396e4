// Leaves out the (token, expert) pairs that matter least, before anything is sent (MoDES, eq. 3 and 5).
#pragma once

#include <cstdint>

#include "cluster/operating_point.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"
#include "expert_parallel/traffic_counters.h"
#include "tensor/tensor.h"

namespace skipper {

// The pair rule of one MoE layer: with p = the token's weights divided by their sum and s = alpha[class][layer] · p, a pair is
// skipped iff s < tau[class] of the token's level. All in FP32; strict, so tau = 0 skips nothing. Protected tokens never lose
// a pair; survivors keep their weights. The decision depends on the token alone, not on the batch nor on any placement.
// Engine thread only.
class ExpertSkipping {
 public:
  // `levels` outlives this object. `moe_layer` is the row of alpha.
  ExpertSkipping(const LevelTable& levels, int moe_layer);

  // Returns `routed` itself when no token of the batch has a threshold above 0; otherwise the same weights with the surviving
  // ids, written to `kept_ids` [>= T, top_k] i32. `routed` is not changed. Counts pairs run and skipped by class.
  Routing apply(const Routing& routed, const TokenPolicies& policies, Tensor& kept_ids, TrafficCounters& counters) const;

 private:
  bool any_token_may_skip(const TokenPolicies& policies) const;

  const LevelTable& levels_;
  const size_t moe_layer_;
};

}  // namespace skipper

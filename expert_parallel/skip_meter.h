// What deciding about pairs takes a rank, and what running them takes it, by layer and phase.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cluster/operating_point.h"
#include "cluster/token_class.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"

namespace skipper {

// Sums since start.
struct SkipCost {
  double deciding_seconds = 0.0;  // in batches with a token that may lose pairs
  double running_seconds = 0.0;   // of all behind the decision: dispatch, experts, combine
  int64_t pairs_decided = 0;      // of tokens that may lose pairs
  int64_t pairs_skipped = 0;
  int64_t pairs_run = 0;          // of all tokens of this rank

  SkipCost& operator-=(const SkipCost& other);
};

// What one layer did with a batch.
struct MeteredBatch {
  int moe_layer = 0;
  const LevelTable& levels;
  const TokenPolicies& policies;
  const Routing& routed;
  const Routing& kept;
  double deciding_seconds = 0.0;
  double running_seconds = 0.0;
};

// A batch of both phases shares its time out: deciding by pairs decided, running by pairs run. Engine thread only.
class SkipMeter {
 public:
  explicit SkipMeter(int num_moe_layers) : costs_(static_cast<size_t>(num_moe_layers) * kNumTokenPhases) {}

  void add(const MeteredBatch& batch);
  std::span<const SkipCost> costs() const { return costs_; }  // [MoE layer][phase]

 private:
  std::vector<SkipCost> costs_;
};

}  // namespace skipper

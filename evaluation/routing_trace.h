// What routing looks like on calibration data: which experts each class uses, and how large the shares p of their pairs are.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cluster/token_class.h"
#include "evaluation/threshold_grid.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"

namespace skipper {

struct TraceShape {
  int num_moe_layers = 0;
  int num_experts = 0;
};

// Counts of unskipped tokens. Pairs by p = weight / sum of the token's weights, in kBuckets equal steps of its logarithm from
// 2^-16 to 1; smaller ones are in the first. Engine thread only; the ranks' counts are added up.
class RoutingTrace {
 public:
  static constexpr int kBuckets = 128;
  static constexpr int kBucketsPerOctave = 8;

  explicit RoutingTrace(const TraceShape& shape);

  // The routing of one layer; tokens at other levels than 0 are not counted.
  void count(int moe_layer, const TokenPolicies& policies, const Routing& routed);

  const TraceShape& shape() const { return shape_; }
  // Pairs by expert.
  std::span<const int64_t> experts(int moe_layer, TokenPhase phase, TokenClass token_class) const;
  // Pairs by bucket of p.
  std::span<const int64_t> shares(int moe_layer, TokenPhase phase, TokenClass token_class) const;
  // Of both phases.
  std::vector<int64_t> shares(int moe_layer, TokenClass token_class) const;
  // Where the buckets begin, and where the last one ends.
  static std::vector<double> edges();
  int64_t num_pairs(TokenClass token_class) const;

  // The scores alpha · p of a class, a quarter of each bucket at each of four steps up to its upper end: no pair scores more
  // than the highest.
  ScoreDistribution scores(TokenClass token_class, std::span<const float> alpha) const;

  // All counts in one list, to add up over ranks.
  std::span<int64_t> counts() { return counts_; }

 private:
  size_t experts_at(int moe_layer, TokenPhase phase, TokenClass token_class) const;
  size_t shares_at(int moe_layer, TokenPhase phase, TokenClass token_class) const;

  TraceShape shape_;
  std::vector<int64_t> counts_;  // [layers, phases, classes, experts], then [layers, phases, classes, buckets]
};

}  // namespace skipper

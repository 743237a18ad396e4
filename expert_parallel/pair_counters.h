// How many (token, expert) pairs ran and were skipped, by layer, class and phase.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cluster/token_class.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"

namespace skipper {

enum class PairOutcome : uint8_t { kRun = 0, kSkipped = 1 };
inline constexpr size_t kNumPairOutcomes = 2;

// Sums since start of one rank. All ranks of a job have counters of one size, so that they can be sent as they are.
class PairCounters {
 public:
  explicit PairCounters(int num_moe_layers);

  // The pairs of one layer before and after skipping.
  void count(int moe_layer, const TokenPolicies& policies, const Routing& routed, const Routing& kept);

  int64_t at(int moe_layer, TokenPhase phase, TokenClass token_class, PairOutcome outcome) const;
  int num_moe_layers() const { return num_moe_layers_; }

  // [MoE layer][phase][class][outcome]
  std::span<int64_t> counts() { return counts_; }
  std::span<const int64_t> counts() const { return counts_; }

  void clear();
  PairCounters& operator+=(const PairCounters& other);
  PairCounters& operator-=(const PairCounters& other);

 private:
  int num_moe_layers_ = 0;
  std::vector<int64_t> counts_;
};

}  // namespace skipper

#include "expert_parallel/pair_counters.h"

#include <glog/logging.h>

#include <algorithm>
#include <functional>

namespace skipper {
namespace {

constexpr size_t kPerClass = kNumPairOutcomes;
constexpr size_t kPerPhase = kNumTokenClasses * kPerClass;
constexpr size_t kPerLayer = kNumTokenPhases * kPerPhase;

int64_t num_experts(const Tensor& expert_ids, int64_t token) {
  const int32_t* ids = expert_ids.row<int32_t>(token);
  return expert_ids.dim(1) - std::count(ids, ids + expert_ids.dim(1), kNoExpert);
}

}  // namespace

PairCounters::PairCounters(int num_moe_layers)
    : num_moe_layers_(num_moe_layers), counts_(static_cast<size_t>(num_moe_layers) * kPerLayer) {}

void PairCounters::count(int moe_layer, const TokenPolicies& policies, const Routing& routed, const Routing& kept) {
  CHECK_LT(moe_layer, num_moe_layers_);
  int64_t* layer = counts_.data() + static_cast<size_t>(moe_layer) * kPerLayer;
  const uint8_t* phases = policies.phase.data<uint8_t>();
  const uint8_t* classes = policies.token_class.data<uint8_t>();
  const bool all_ran = routed.expert_ids.bytes() == kept.expert_ids.bytes();
  for (int64_t t = 0; t < policies.num_tokens(); ++t) {
    int64_t* outcomes = layer + phases[t] * kPerPhase + classes[t] * kPerClass;
    const int64_t num_routed = num_experts(routed.expert_ids, t);
    const int64_t num_run = all_ran ? num_routed : num_experts(kept.expert_ids, t);
    outcomes[static_cast<size_t>(PairOutcome::kRun)] += num_run;
    outcomes[static_cast<size_t>(PairOutcome::kSkipped)] += num_routed - num_run;
  }
}

int64_t PairCounters::at(int moe_layer, TokenPhase phase, TokenClass token_class, PairOutcome outcome) const {
  return counts_.at(static_cast<size_t>(moe_layer) * kPerLayer + static_cast<size_t>(phase) * kPerPhase +
                    static_cast<size_t>(token_class) * kPerClass + static_cast<size_t>(outcome));
}

void PairCounters::clear() { std::fill(counts_.begin(), counts_.end(), 0); }

PairCounters& PairCounters::operator+=(const PairCounters& other) {
  CHECK_EQ(counts_.size(), other.counts_.size());
  std::transform(counts_.begin(), counts_.end(), other.counts_.begin(), counts_.begin(), std::plus<>());
  return *this;
}

PairCounters& PairCounters::operator-=(const PairCounters& other) {
  CHECK_EQ(counts_.size(), other.counts_.size());
  std::transform(counts_.begin(), counts_.end(), other.counts_.begin(), counts_.begin(), std::minus<>());
  return *this;
}

}  // namespace skipper

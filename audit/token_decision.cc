#include "audit/token_decision.h"

#include <algorithm>

#include "expert_parallel/expert_skipping.h"

namespace skipper {

std::vector<int32_t> decide_again(const RoutingRecord& record, const LevelTable& levels, const TokenPlace&) {
  const auto top_k = static_cast<int64_t>(record.experts.size());
  Routing routed{.expert_ids = Tensor::empty({1, top_k}, DType::kI32), .expert_weights = Tensor::empty({1, top_k}, DType::kF32)};
  std::copy(record.experts.begin(), record.experts.end(), routed.expert_ids.data<int32_t>());
  std::copy(record.weights.begin(), record.weights.end(), routed.expert_weights.data<float>());
  TokenPolicies policies = TokenPolicies::defaults(1);
  policies.token_class.data<uint8_t>()[0] = static_cast<uint8_t>(record.token_class);
  policies.phase.data<uint8_t>()[0] = static_cast<uint8_t>(record.phase);
  policies.level.data<uint8_t>()[0] = record.level;
  Tensor kept_ids = Tensor::empty({1, top_k}, DType::kI32);
  TrafficCounters counters;
  const Routing kept = ExpertSkipping(levels, record.moe_layer).apply(routed, policies, kept_ids, counters);
  const auto ids = kept.expert_ids.span<int32_t>();
  return {ids.begin(), ids.end()};
}

}  // namespace skipper

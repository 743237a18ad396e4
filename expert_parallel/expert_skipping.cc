#include "expert_parallel/expert_skipping.h"

#include <glog/logging.h>

#include <algorithm>
#include <span>

namespace skipper {

namespace {

// What decides over one token's pairs.
struct Threshold {
  float alpha = 0.0f;
  float tau = 0.0f;  // 0 = nothing is skipped
  bool protect_top1 = false;
};

// One token's slots of the routing.
struct TokenPairs {
  std::span<const int32_t> ids;
  std::span<const float> weights;
};

Threshold threshold_of(const LevelTable& levels, size_t moe_layer, uint8_t level, uint8_t token_class) {
  CHECK_LT(level, levels.levels.size());
  CHECK_LT(token_class, kNumTokenClasses);
  if (token_class == static_cast<uint8_t>(TokenClass::kProtected)) return {};
  const OperatingPoint& point = levels.levels[level];
  CHECK_LT(moe_layer, point.alpha[token_class].size());
  return {.alpha = point.alpha[token_class][moe_layer],
          .tau = point.tau[token_class],
          .protect_top1 = point.protect_top1};
}

TokenPairs pairs_of(const Routing& routing, int64_t token) {
  const auto top_k = static_cast<size_t>(routing.expert_ids.dim(1));
  return {.ids = {routing.expert_ids.row<int32_t>(token), top_k},
          .weights = {routing.expert_weights.row<float>(token), top_k}};
}

float sum_of_weights(const TokenPairs& pairs) {
  float sum = 0.0f;
  for (size_t j = 0; j < pairs.ids.size(); ++j) {
    if (pairs.ids[j] != kNoExpert) sum += pairs.weights[j];
  }
  return sum;
}

// The slot with the largest weight, the earliest of equals.
size_t top1_slot(const TokenPairs& pairs) {
  size_t best = 0;
  for (size_t j = 1; j < pairs.ids.size(); ++j) {
    if (pairs.ids[j] == kNoExpert) continue;
    if (pairs.ids[best] == kNoExpert || pairs.weights[j] > pairs.weights[best]) best = j;
  }
  return best;
}

void skip_pairs(const TokenPairs& pairs, const Threshold& threshold, int32_t* kept_ids) {
  const float sum = sum_of_weights(pairs) + 1e-20f;  // MoDES; keeps all-zero weights from dividing by zero
  for (size_t j = 0; j < pairs.ids.size(); ++j) {
    const float score = threshold.alpha * (pairs.weights[j] / sum);
    kept_ids[j] = score < threshold.tau ? kNoExpert : pairs.ids[j];
  }
  if (threshold.protect_top1) {
    const size_t top1 = top1_slot(pairs);
    kept_ids[top1] = pairs.ids[top1];
  }
}

int64_t count_experts(const int32_t* ids, int64_t top_k) {
  return top_k - std::count(ids, ids + top_k, kNoExpert);
}

void count_pairs(const Routing& routed, const Routing& kept, const TokenPolicies& policies, TrafficCounters& counters) {
  const int64_t top_k = routed.expert_ids.dim(1);
  const uint8_t* classes = policies.token_class.data<uint8_t>();
  for (int64_t t = 0; t < routed.expert_ids.dim(0); ++t) {
    const int64_t num_run = count_experts(kept.expert_ids.row<int32_t>(t), top_k);
    const int64_t num_skipped = count_experts(routed.expert_ids.row<int32_t>(t), top_k) - num_run;
    counters.pairs_run[classes[t]] += num_run;
    counters.pairs_skipped[classes[t]] += num_skipped;
    policies.add_usage(t, UsageColumn::kPairsRun, static_cast<int32_t>(num_run));
    policies.add_usage(t, UsageColumn::kPairsSkipped, static_cast<int32_t>(num_skipped));
  }
}

}  // namespace

ExpertSkipping::ExpertSkipping(const LevelTable& levels, int moe_layer)
    : levels_(levels), moe_layer_(static_cast<size_t>(moe_layer)) {}

Routing ExpertSkipping::apply(const Routing& routed, const TokenPolicies& policies, Tensor& kept_ids,
                              TrafficCounters& counters) const {
  Routing kept = routed;
  if (any_token_may_skip(policies)) {
    const int64_t num_tokens = routed.expert_ids.dim(0);
    const uint8_t* classes = policies.token_class.data<uint8_t>();
    const uint8_t* token_levels = policies.level.data<uint8_t>();
    kept.expert_ids = kept_ids.first(num_tokens);
    for (int64_t t = 0; t < num_tokens; ++t) {
      const Threshold threshold = threshold_of(levels_, moe_layer_, token_levels[t], classes[t]);
      skip_pairs(pairs_of(routed, t), threshold, kept.expert_ids.row<int32_t>(t));
    }
  }
  count_pairs(routed, kept, policies, counters);
  return kept;
}

bool ExpertSkipping::any_token_may_skip(const TokenPolicies& policies) const {
  const auto classes = policies.token_class.span<uint8_t>();
  const auto token_levels = policies.level.span<uint8_t>();
  CHECK_EQ(classes.size(), token_levels.size());
  for (size_t t = 0; t < classes.size(); ++t) {
    if (threshold_of(levels_, moe_layer_, token_levels[t], classes[t]).tau > 0.0f) return true;
  }
  return false;
}

}  // namespace skipper

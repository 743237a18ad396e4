#include "evaluation/routing_trace.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "expert_parallel/token_rules.h"

namespace skipper {
namespace {

constexpr int kStepsPerBucket = 4;

double lower_edge(double bucket) {
  return std::exp2((bucket - RoutingTrace::kBuckets) / RoutingTrace::kBucketsPerOctave);
}

int bucket_of(float share) {
  const double position = RoutingTrace::kBuckets + RoutingTrace::kBucketsPerOctave * std::log2(static_cast<double>(share));
  return static_cast<int>(std::clamp(std::floor(position), 0.0, RoutingTrace::kBuckets - 1.0));
}

size_t row_of(int moe_layer, TokenPhase phase, TokenClass token_class) {
  return (static_cast<size_t>(moe_layer) * kNumTokenPhases + static_cast<size_t>(phase)) * kNumTokenClasses +
         static_cast<size_t>(token_class);
}

}  // namespace

RoutingTrace::RoutingTrace(const TraceShape& shape) : shape_(shape), counts_(shares_at(shape.num_moe_layers, {}, {}), 0) {}

size_t RoutingTrace::experts_at(int moe_layer, TokenPhase phase, TokenClass token_class) const {
  return row_of(moe_layer, phase, token_class) * static_cast<size_t>(shape_.num_experts);
}

// Behind those of all experts.
size_t RoutingTrace::shares_at(int moe_layer, TokenPhase phase, TokenClass token_class) const {
  return experts_at(shape_.num_moe_layers, {}, {}) + row_of(moe_layer, phase, token_class) * kBuckets;
}

void RoutingTrace::count(int moe_layer, const TokenPolicies& policies, const Routing& routed) {
  for (int64_t t = 0; t < policies.num_tokens(); ++t) {
    if (policies.level.data<uint8_t>()[t] != 0) continue;
    const auto token_class = static_cast<TokenClass>(policies.token_class.data<uint8_t>()[t]);
    const auto phase = static_cast<TokenPhase>(policies.phase.data<uint8_t>()[t]);
    const PairShares shares(pairs_of(routed, t));
    if (!shares.are_numbers()) continue;
    int64_t* experts = counts_.data() + experts_at(moe_layer, phase, token_class);
    int64_t* buckets = counts_.data() + shares_at(moe_layer, phase, token_class);
    for (size_t slot = 0; slot < shares.pairs().num_slots(); ++slot) {
      const int32_t expert = shares.pairs().ids[slot];
      if (expert == kNoExpert) continue;
      ++experts[expert];
      ++buckets[bucket_of(shares[slot])];
    }
  }
}

std::span<const int64_t> RoutingTrace::experts(int moe_layer, TokenPhase phase, TokenClass token_class) const {
  return std::span(counts_).subspan(experts_at(moe_layer, phase, token_class), static_cast<size_t>(shape_.num_experts));
}

std::span<const int64_t> RoutingTrace::shares(int moe_layer, TokenPhase phase, TokenClass token_class) const {
  return std::span(counts_).subspan(shares_at(moe_layer, phase, token_class), kBuckets);
}

std::vector<int64_t> RoutingTrace::shares(int moe_layer, TokenClass token_class) const {
  const auto prompt = shares(moe_layer, TokenPhase::kPrompt, token_class);
  const auto generated = shares(moe_layer, TokenPhase::kGenerated, token_class);
  std::vector<int64_t> sums(kBuckets);
  std::transform(prompt.begin(), prompt.end(), generated.begin(), sums.begin(), std::plus<>());
  return sums;
}

std::vector<double> RoutingTrace::edges() {
  std::vector<double> edges = {0.0};
  for (int bucket = 1; bucket <= kBuckets; ++bucket) edges.push_back(lower_edge(bucket));
  return edges;
}

int64_t RoutingTrace::num_pairs(TokenClass token_class) const {
  int64_t sum = 0;
  for (int layer = 0; layer < shape_.num_moe_layers; ++layer) {
    const std::vector<int64_t> buckets = shares(layer, token_class);
    sum = std::accumulate(buckets.begin(), buckets.end(), sum);
  }
  return sum;
}

ScoreDistribution RoutingTrace::scores(TokenClass token_class, std::span<const float> alpha) const {
  std::vector<ScoreCount> scores;
  for (int layer = 0; layer < shape_.num_moe_layers; ++layer) {
    const std::vector<int64_t> buckets = shares(layer, token_class);
    for (int bucket = 0; bucket < kBuckets; ++bucket) {
      for (int step = 1; step <= kStepsPerBucket; ++step) {
        const double share = lower_edge(bucket + static_cast<double>(step) / kStepsPerBucket);
        scores.push_back({static_cast<double>(alpha[static_cast<size_t>(layer)]) * share,
                          static_cast<double>(buckets[static_cast<size_t>(bucket)]) / kStepsPerBucket});
      }
    }
  }
  return ScoreDistribution(std::move(scores));
}

}  // namespace skipper

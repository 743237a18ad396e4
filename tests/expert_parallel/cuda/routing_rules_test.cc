// The rules on a GPU against expert_parallel/expert_skipping.h, bit by bit on the same logits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <set>

#include "expert_parallel/cuda/device_skip_table.h"
#include "expert_parallel/expert_skipping.h"
#include "expert_parallel/kept_weights.h"
#include "expert_parallel/pair_counters.h"
#include "kernels/cuda/routing.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

constexpr int kNumLayers = 2, kLayer = 1;

struct RulesShape {
  int num_experts = 32;
  int64_t top_k = 4;
  std::vector<int> node_of_rank = {0, 0, 1, 1};
  int own_rank = 1;

  int world_size() const { return static_cast<int>(node_of_rank.size()); }
};

// What a token's pairs became, on either side.
struct Outcome {
  Tensor expert_ids, routed_ids, expert_weights, usage;
  PairCounters pairs{1};
};

class Random {
 public:
  explicit Random(uint32_t seed) : generator_(seed) {}

  float number(float low, float high) { return std::uniform_real_distribution<float>(low, high)(generator_); }
  bool coin() { return std::bernoulli_distribution(0.5)(generator_); }
  int integer(int end) { return std::uniform_int_distribution<int>(0, end - 1)(generator_); }

 private:
  std::mt19937 generator_;
};

// Every field has a value that takes some pairs and spares others, or is off.
OperatingPoint random_point(const RulesShape& shape, PairRule rule, Random& random) {
  OperatingPoint point{.pair_rule = rule, .destination_score = DestinationScore{static_cast<uint8_t>(random.integer(2))}};
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    point.alpha[c] = {0.1f, random.number(0.2f, 1.5f)};
    point.tau[c] = random.coin() ? random.number(0.0f, 0.5f) : 0.0f;
    point.kept_k[c] = random.number(0.0f, static_cast<float>(shape.top_k) + 1.0f);
    point.beta[c] = {0.0f, random.coin() ? random.number(0.0f, 1.0f) : 0.0f};
    point.tau_dst[c] = {0.0f, random.coin() ? random.number(0.0f, 0.2f) : 0.0f, random.coin() ? random.number(0.0f, 0.4f) : 0.0f};
  }
  if (random.coin()) point.tau_generated = random.number(0.0f, 0.4f);
  if (rule == PairRule::kScore && random.coin()) {
    for (int i = 0; i < kNumLayers * shape.num_experts; ++i) point.expert_scale.push_back(random.number(0.5f, 2.0f));
  }
  point.exempt_local = random.coin();
  point.protect_top1 = random.coin();
  point.protect_margin = random.coin() ? random.number(0.0f, 0.2f) : 0.0f;
  point.renormalize = random.coin();
  return point;
}

LevelTable random_levels(const RulesShape& shape, uint32_t seed) {
  LevelTable table = unskipped_levels(kNumLayers);
  Random random(seed);
  for (int level = 0; level < 40; ++level) {
    table.levels.push_back(random_point(shape, PairRule{static_cast<uint8_t>(level % 4)}, random));
  }
  return table;
}

TokenPolicies random_policies(int64_t num_tokens, int num_levels, uint32_t seed) {
  TokenPolicies policies = TokenPolicies::defaults(num_tokens);
  Random random(seed);
  for (int64_t t = 0; t < num_tokens; ++t) {
    policies.token_class.data<uint8_t>()[t] = static_cast<uint8_t>(random.integer(kNumTokenClasses));
    policies.phase.data<uint8_t>()[t] = static_cast<uint8_t>(random.integer(kNumTokenPhases));
    policies.level.data<uint8_t>()[t] = static_cast<uint8_t>(random.integer(num_levels));
  }
  auto tokens = policies.step_token.span<int32_t>();
  std::reverse(tokens.begin(), tokens.end());
  return policies;
}

// --- On the CPU ---------------------------------------------------------------------------------------------------------------

class CpuRules {
 public:
  CpuRules(const RulesShape& shape, const LevelTable& levels)
      : shape_(shape),
        levels_(levels),
        placement_(ExpertPlacement::contiguous(
            {.num_moe_layers = kNumLayers, .num_experts = shape.num_experts, .world_size = shape.world_size()})),
        topology_(shape.node_of_rank) {}

  Outcome apply(const Tensor& logits, TopKNormalization normalization, const TokenPolicies& policies) const {
    const Shape pairs{logits.dim(0), shape_.top_k};
    Routing routed{Tensor::empty(pairs, DType::kI32), Tensor::empty(pairs, DType::kF32)};
    Stream host;
    top_k_softmax(logits, normalization, routed.expert_ids, routed.expert_weights, host);
    Outcome out{.expert_ids = Tensor::empty(pairs, DType::kI32),
                .routed_ids = routed.expert_ids,
                .expert_weights = Tensor::empty(pairs, DType::kF32),
                .usage = Tensor::zeros({logits.dim(0), kNumGpuUsageColumns}, DType::kI32)};
    std::ranges::copy(routed.expert_weights.span<float>(), out.expert_weights.span<float>().begin());
    BatchRules rules(levels_, kLayer, policies);
    for (int64_t t = 0; t < logits.dim(0); ++t) {
      const std::span<int32_t> kept(out.expert_ids.row<int32_t>(t), static_cast<size_t>(shape_.top_k));
      apply_token_rules(pairs_of(routed, t), rules.of(t), destinations(), kept);
      if (rules.of(t).renormalize) renormalize(pairs_of(routed, t), kept, {out.expert_weights.row<float>(t), kept.size()});
      count_usage(pairs_of(routed, t).ids, kept, out.usage.row<int32_t>(policies.step_token.data<int32_t>()[t]));
    }
    out.pairs.count(0, policies, routed, {out.expert_ids, out.expert_weights});
    return out;
  }

  Destinations destinations() const { return {placement_.homes(kLayer), topology_, shape_.own_rank}; }
  std::vector<int32_t> ranks() const {
    std::vector<int32_t> ranks;
    for (const ExpertHome& home : placement_.homes(kLayer)) ranks.push_back(home.rank);
    return ranks;
  }
  std::vector<int32_t> hops() const {
    std::vector<int32_t> hops;
    for (int rank = 0; rank < shape_.world_size(); ++rank) hops.push_back(static_cast<int32_t>(destinations().hop_to(rank)));
    return hops;
  }

 private:
  int32_t num_other_ranks(std::span<const int32_t> ids) const {
    std::set<int> ranks;
    for (const int32_t id : ids) {
      if (id != kNoExpert && !destinations().is_own(id)) ranks.insert(destinations().rank_of(id));
    }
    return static_cast<int32_t>(ranks.size());
  }
  void count_usage(std::span<const int32_t> routed, std::span<const int32_t> kept, int32_t* usage) const {
    usage[1] = static_cast<int32_t>(std::ranges::count(kept, kNoExpert));
    usage[0] = static_cast<int32_t>(kept.size()) - usage[1];
    usage[2] = num_other_ranks(kept);
    usage[3] = num_other_ranks(routed) - usage[2];
  }

  RulesShape shape_;
  const LevelTable& levels_;
  ExpertPlacement placement_;
  ClusterTopology topology_;
};

// --- On the GPU ---------------------------------------------------------------------------------------------------------------

class RoutingRules : public GpuTest {
 protected:
  Tensor integers(const std::vector<int32_t>& values) {
    return on_gpu(Tensor::borrow_const(values.data(), {static_cast<int64_t>(values.size())}, DType::kI32));
  }

  Outcome apply(const RulesShape& shape, const LevelTable& levels, const Tensor& logits, TopKNormalization normalization,
                const TokenPolicies& policies) {
    const CpuRules cpu(shape, levels);
    DeviceSkipTable table({.num_moe_layers = kNumLayers, .num_experts = shape.num_experts}, Device::cuda(0));
    table.upload(levels, stream());
    const Tensor skip_rows = table.skip_rows(kLayer), scale = table.expert_scale(kLayer);
    const Tensor gpu_logits = on_gpu(logits), classes = on_gpu(policies.token_class), level = on_gpu(policies.level);
    const Tensor phase = on_gpu(policies.phase), tokens = on_gpu(policies.step_token);
    const Tensor ranks = integers(cpu.ranks()), hops = integers(cpu.hops());
    const Shape pairs{logits.dim(0), shape.top_k};
    Tensor expert_ids = poisoned(pairs, DType::kI32), routed_ids = poisoned(pairs, DType::kI32);
    Tensor weights = poisoned(pairs, DType::kF32);
    Tensor usage = Tensor::zeros({logits.dim(0), kNumGpuUsageColumns}, DType::kI32, Device::cuda(0));
    Tensor counts = Tensor::zeros({kNumTokenPhases, kNumTokenClasses, kNumPairOutcomes}, DType::kI64, Device::cuda(0));
    route_tokens({.logits = gpu_logits,
                  .token_class = classes,
                  .level = level,
                  .phase = phase,
                  .step_token = tokens,
                  .skip_rows = skip_rows,
                  .expert_scale = scale,
                  .rank_of_expert = ranks,
                  .hop_of_rank = hops,
                  .own_rank = shape.own_rank,
                  .world_size = shape.world_size(),
                  .normalization = normalization},
                 {expert_ids, routed_ids, weights, usage, counts}, stream());
    Outcome out{on_host(expert_ids), on_host(routed_ids), on_host(weights), on_host(usage)};
    std::ranges::copy(on_host(counts).span<int64_t>(), out.pairs.counts().begin());
    return out;
  }

  void expect_cpu(const RulesShape& shape, TopKNormalization normalization, uint32_t seed) {
    constexpr int64_t kNumTokens = 3001;
    const LevelTable levels = random_levels(shape, seed);
    const Tensor logits = random_f32({kNumTokens, shape.num_experts}, seed, 1.5f);
    const TokenPolicies policies = random_policies(kNumTokens, levels.num_levels(), seed);
    const Outcome cpu = CpuRules(shape, levels).apply(logits, normalization, policies);
    const Outcome gpu = apply(shape, levels, logits, normalization, policies);
    for (int64_t t = 0; t < kNumTokens; ++t) {
      const auto row = [&](const Tensor& tensor) { return tensor.slice(t, t + 1); };
      const int level = policies.level.data<uint8_t>()[t];
      ASSERT_TRUE(same_bytes(row(gpu.routed_ids), row(cpu.routed_ids))) << t << " at level " << level;
      ASSERT_TRUE(same_bytes(row(gpu.expert_ids), row(cpu.expert_ids))) << t << " at level " << level;
      ASSERT_TRUE(same_bytes(row(gpu.expert_weights), row(cpu.expert_weights))) << t << " at level " << level;
    }
    EXPECT_TRUE(same_bytes(gpu.usage, cpu.usage));
    EXPECT_TRUE(std::ranges::equal(gpu.pairs.counts(), cpu.pairs.counts()));
    const int64_t num_left_out = std::ranges::count(cpu.expert_ids.span<int32_t>(), kNoExpert);
    EXPECT_GT(num_left_out, 50);
    EXPECT_LT(num_left_out, kNumTokens * shape.top_k * 9 / 10);
  }
};

TEST_F(RoutingRules, SkipWhatTheCpuSkips) {
  for (const uint32_t seed : {1u, 2u, 3u}) {
    expect_cpu({}, TopKNormalization::kSumToOne, seed);
    expect_cpu({}, TopKNormalization::kNone, seed);
  }
}

TEST_F(RoutingRules, SkipWhatTheCpuSkipsOf128Experts) {
  expect_cpu({.num_experts = 128, .top_k = 8, .node_of_rank = {0, 0, 0, 0, 1, 1, 1, 1}, .own_rank = 3},
             TopKNormalization::kSumToOne, 4);
}

TEST_F(RoutingRules, SkipWhatTheCpuSkipsOnOneRank) {
  expect_cpu({.num_experts = 60, .top_k = 7, .node_of_rank = {0}, .own_rank = 0}, TopKNormalization::kSumToOne, 5);
}

TEST_F(RoutingRules, SkipWhatTheCpuSkipsOfOneChoice) {
  expect_cpu({.num_experts = 11, .top_k = 1, .node_of_rank = {0, 1, 2}, .own_rank = 2}, TopKNormalization::kNone, 6);
}

TEST_F(RoutingRules, KeepAllPairsOfLevelZero) {
  const RulesShape shape;
  const LevelTable levels = random_levels(shape, 7);
  const TokenPolicies policies = TokenPolicies::defaults(50);
  const Outcome gpu = apply(shape, levels, random_f32({50, shape.num_experts}, 8), TopKNormalization::kSumToOne, policies);
  EXPECT_TRUE(same_bytes(gpu.expert_ids, gpu.routed_ids));
}

TEST_F(RoutingRules, AThresholdAboveEveryScoreSkipsEveryPairButProtectedOnes) {
  const RulesShape shape;
  LevelTable levels = unskipped_levels(kNumLayers);
  levels.levels.push_back({.alpha = {std::vector{0.0f, 1.0f}, std::vector{0.0f, 1.0f}}, .tau = {2.0f, 2.0f}});
  TokenPolicies policies = TokenPolicies::defaults(33);
  std::ranges::fill(policies.level.span<uint8_t>(), uint8_t{1});
  policies.token_class.data<uint8_t>()[32] = static_cast<uint8_t>(TokenClass::kProtected);
  const Outcome gpu = apply(shape, levels, random_f32({33, shape.num_experts}, 9), TopKNormalization::kSumToOne, policies);
  for (const int32_t id : gpu.expert_ids.first(32).span<int32_t>()) EXPECT_EQ(id, kNoExpert);
  for (const int32_t id : gpu.expert_ids.slice(32, 33).span<int32_t>()) EXPECT_NE(id, kNoExpert);
  EXPECT_EQ(gpu.pairs.at(0, TokenPhase::kPrompt, TokenClass::kText, PairOutcome::kSkipped), 32 * shape.top_k);
}

}  // namespace
}  // namespace skipper::cuda

// Tokens of different levels in one batch, and all rules together.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/expert_parallel/frozen_routing.h"
#include "tests/expert_parallel/moe_run.h"
#include "tests/support/moe_reference.h"

namespace skipper {
namespace {

// Every rule at once, each strong enough to take pairs.
OperatingPoint harsh_point() {
  OperatingPoint harsh = point({0.5f, 0.5f}, {0.06f, 0.1f});
  harsh.tau_dst = {std::array{0.0f, 0.01f, 0.02f}, std::array{0.0f, 0.01f, 0.02f}};
  harsh.rank_capacity = 1.0f;
  harsh.decode_base_k = 1;
  harsh.decode_rank_experts = 2;
  harsh.renormalize = true;
  return harsh;
}

Frozen mixed_routing(int64_t num_tokens, uint32_t seed) {
  Frozen frozen = random_routing(num_tokens, 2, seed);
  for (int64_t t = 0; t < num_tokens; ++t) frozen.policies.phase.data<uint8_t>()[t] = static_cast<uint8_t>(t / 3 % 2);
  return frozen;
}

float sum_of(std::span<const float> weights, std::span<const int32_t> ids) {
  float sum = 0.0f;
  for (size_t j = 0; j < kTopK; ++j) sum += ids[j] == kNoExpert ? 0.0f : weights[j];
  return sum;
}

TEST(SkippingMix, TokensThatSkipNothingAreUntouchedBesideOthers) {
  const Frozen frozen = mixed_routing(150, 3);
  const Skipped skipped = skip(frozen, table({point({0.5f, 0.5f}, {0.0f, 0.0f}), harsh_point()}), kThreeRanks);
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    if (frozen.level(t) != 0 && frozen.token_class(t) != TokenClass::kProtected) continue;
    EXPECT_TRUE(std::ranges::equal(skipped.ids(t), frozen.ids(t)));
    EXPECT_TRUE(std::ranges::equal(skipped.weights(t), frozen.weights(t)));
  }
  EXPECT_GT(skipped.counters.pairs_skipped[0], 0);
  EXPECT_GT(skipped.counters.pairs_skipped[1], 0);
  EXPECT_EQ(skipped.counters.pairs_skipped[2], 0);
}

TEST(SkippingMix, PairsRunAndSkippedAddUpToAllAndToTheTokensUsage) {
  const Frozen frozen = mixed_routing(101, 5);
  const Skipped skipped = skip(frozen, table({point({0.5f, 0.5f}, {0.0f, 0.0f}), point({0.5f, 0.5f}, {0.1f, 0.2f})}));
  EXPECT_EQ(total(skipped.counters.pairs_run) + total(skipped.counters.pairs_skipped), 101 * int64_t{kTopK});
  int64_t run = 0, spared = 0;
  for (int64_t t = 0; t < 101; ++t) {
    const int32_t* usage = frozen.policies.usage.row<int32_t>(t);
    EXPECT_EQ(usage[0] + usage[1], int64_t{kTopK});
    run += usage[static_cast<size_t>(UsageColumn::kPairsRun)];
    spared += usage[static_cast<size_t>(UsageColumn::kPairsSkipped)];
  }
  EXPECT_EQ(run, total(skipped.counters.pairs_run));
  EXPECT_EQ(spared, total(skipped.counters.pairs_skipped));
}

TEST(SkippingMix, SurvivorsSumToTheOldSumWhereTheirLevelRenormalizes) {
  Frozen frozen = mixed_routing(120, 7);
  for (float& weight : frozen.routing.expert_weights.span<float>()) weight *= 0.7f;  // as without normalisation
  const Skipped skipped = skip(frozen, table({point({0.5f, 0.5f}, {0.1f, 0.1f}), harsh_point()}), kThreeRanks);
  int num_scaled = 0;
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    if (frozen.level(t) == 0 || std::ranges::equal(skipped.ids(t), frozen.ids(t))) {
      EXPECT_TRUE(std::ranges::equal(skipped.weights(t), frozen.weights(t)));
      continue;
    }
    if (std::ranges::count(skipped.ids(t), kNoExpert) == int64_t{kTopK}) continue;
    EXPECT_NEAR(sum_of(skipped.weights(t), skipped.ids(t)), sum_of(frozen.weights(t), frozen.ids(t)), 1e-6);
    ++num_scaled;
  }
  EXPECT_GT(num_scaled, 10);
}

TEST(SkippingMix, LevelsWithoutThresholdsGiveTheRoutingItself) {
  OperatingPoint idle = point({0.5f, 0.5f}, {0.0f, 0.0f});
  idle.protect_top1 = idle.renormalize = idle.exempt_local = true;
  idle.protect_margin = 0.5f;
  const Frozen frozen = mixed_routing(40, 9);
  const Skipped skipped = skip(frozen, table({idle, idle}));
  EXPECT_EQ(skipped.kept.expert_ids.bytes(), frozen.routing.expert_ids.bytes());
  EXPECT_EQ(skipped.kept.expert_weights.bytes(), frozen.routing.expert_weights.bytes());
}

constexpr MoeShape kShape{.hidden_size = 24, .intermediate_size = 10, .num_experts = 12, .top_k = 4};

// One MoE layer, alpha 1.
OperatingPoint one_layer(const OperatingPoint& from) {
  OperatingPoint result = from;
  result.alpha = {std::vector{1.0f}, std::vector{1.0f}};
  return result;
}

TEST(SkippingMix, GoldOutputsAreBitEqualAloneAndMixed) {
  const MoeWeights weights = random_moe_weights(kShape, 1);
  for (const int world_size : {1, 3}) {
    MoeSetup setup{.weights = weights, .world_size = world_size, .formats = kExactFormats};
    setup.levels.levels.push_back(one_layer(harsh_point()));
    setup.levels.levels[1].tau = {0.25f, 0.25f};
    TokenBatch batch = random_batch(31, kShape, world_size, 2);
    std::vector<size_t> gold;
    for (size_t t = 0; t < batch.size(); ++t) {
      batch.levels[t] = t % 3 == 0 ? 0 : 1;
      if (t % 3 == 0) gold.push_back(t);
    }
    const MoeRun mixed = run_moe(setup, batch);
    const MoeRun alone = run_moe(setup, batch.subset(gold));
    for (size_t i = 0; i < gold.size(); ++i) EXPECT_EQ(mixed.tokens[gold[i]].out, alone.tokens[i].out);
    EXPECT_GT(mixed.total().pairs_skipped[0], 0);
  }
}

TEST(SkippingMix, ExemptLayersGiveTheBitsOfNoSkipping) {
  const MoeWeights weights = random_moe_weights(kShape, 3);
  MoeSetup setup{.weights = weights, .world_size = 3};
  OperatingPoint exempt = one_layer(OperatingPoint{});
  exempt.tau = {2.0f, 2.0f};
  exempt.tau_dst[0] = {0.0f, 2.0f, 2.0f};
  setup.levels.levels.push_back(exempt);
  setup.levels.levels[1].exempt_layers[0] = {1};
  setup.levels.levels.push_back(exempt);
  setup.levels.levels[2].exempt_layers[1] = {1};  // of generated tokens: these are prompts
  TokenBatch batch = random_batch(20, kShape, 3, 4);
  const MoeRun whole = run_moe(setup, batch);
  batch.levels.assign(20, 1);
  const MoeRun run = run_moe(setup, batch);
  EXPECT_EQ(run.outputs(), whole.outputs());
  EXPECT_EQ(run.total().pairs_skipped[0], 0);
  batch.levels.assign(20, 2);
  EXPECT_EQ(run_moe(setup, batch).total().pairs_run[0], 0);
}

TEST(SkippingMix, BypassedTokensGetTheirInputAndSendNothing) {
  const MoeWeights weights = random_moe_weights(kShape, 3);
  MoeSetup setup{.weights = weights, .world_size = 3};
  OperatingPoint bypassing = one_layer(OperatingPoint{});
  bypassing.identity_bypass[1] = {1};
  bypassing.protect_top1 = true;  // means the rules, not a layer that is not run
  setup.levels.levels.push_back(bypassing);
  TokenBatch batch = random_batch(20, kShape, 3, 4);
  batch.levels.assign(20, 1);
  for (size_t t = 0; t < 20; ++t) batch.classes[t] = TokenClass{static_cast<uint8_t>(t % 3)};
  const MoeRun run = run_moe(setup, batch);
  batch.levels.assign(20, 0);
  const MoeRun whole = run_moe(setup, batch);
  for (size_t t = 0; t < 20; ++t) {
    if (batch.classes[t] != TokenClass::kVision) {
      EXPECT_EQ(run.tokens[t].out, whole.tokens[t].out);
      continue;
    }
    EXPECT_TRUE(std::ranges::equal(run.tokens[t].out, batch.row(t)));
  }
  EXPECT_EQ(run.total().pairs_run[1], 0);
  for (const auto& of_direction : run.total().payload_bytes) {
    for (const auto& of_hop : of_direction) EXPECT_EQ(of_hop[1], 0);
  }
}

// ‖y − y_kept‖ ≤ Σ over the dropped pairs of w · ‖E(x)‖.
TEST(SkippingMix, WhatALayerLosesIsBoundedByTheDroppedPairs) {
  const MoeWeights weights = random_moe_weights(kShape, 5);
  MoeSetup setup{.weights = weights, .world_size = 2, .formats = kExactFormats};
  OperatingPoint plain = one_layer(point({1.0f, 1.0f}, {0.25f, 0.25f}));
  plain.tau_dst = {std::array{0.0f, 0.1f, 0.1f}, std::array{0.0f, 0.1f, 0.1f}};
  setup.levels.levels.push_back(plain);
  TokenBatch batch = random_batch(40, kShape, 2, 6);
  const MoeRun whole = run_moe(setup, batch);
  batch.levels.assign(40, 1);
  const MoeRun run = run_moe(setup, batch);
  for (size_t t = 0; t < 40; ++t) {
    double bound = 0.0, error = 0.0;
    for (size_t j = 0; j < kTopK; ++j) {
      const TokenResult& token = run.tokens[t];
      if (token.kept_ids[j] != kNoExpert) continue;
      const auto output = reference_expert(weights, token.routed_ids[j], batch.row(t));
      bound += double{token.routed_weights[j]} * std::sqrt(std::inner_product(output.begin(), output.end(), output.begin(), 0.0));
    }
    for (size_t i = 0; i < run.tokens[t].out.size(); ++i) {
      error += std::pow(double{whole.tokens[t].out[i]} - double{run.tokens[t].out[i]}, 2);
    }
    EXPECT_LE(std::sqrt(error), bound * 1.0001 + 1e-6);
  }
  EXPECT_GT(run.total().pairs_skipped[0], 0);
}

TEST(SkippingMix, ThresholdsAboveOneLeaveZerosAndNoPayload) {
  const MoeWeights weights = random_moe_weights(kShape, 7);
  for (const bool by_destination : {false, true}) {
    MoeSetup setup{.weights = weights, .world_size = 3};
    OperatingPoint all = one_layer(point({1.0f, 1.0f}, {2.0f, 2.0f}));
    if (by_destination) all.tau = {0.0f, 0.0f};
    if (by_destination) all.tau_dst = {std::array{0.0f, 2.0f, 2.0f}, std::array{0.0f, 2.0f, 2.0f}};
    setup.levels.levels.push_back(all);
    TokenBatch batch = random_batch(17, kShape, 3, 8);
    batch.levels.assign(17, 1);
    const MoeRun run = run_moe(setup, batch);
    EXPECT_EQ(run.total().total_payload_bytes(Hop::kNode), 0);
    EXPECT_EQ(run.total().total_payload_bytes(Hop::kLocal) > 0, by_destination);
    if (by_destination) continue;
    for (const TokenResult& token : run.tokens) {
      EXPECT_TRUE(std::ranges::all_of(token.out, [](float value) { return value == 0.0f; }));
    }
  }
}

}  // namespace
}  // namespace skipper

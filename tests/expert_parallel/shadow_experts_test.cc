// A MoE layer over ranks that hold shadows of each other's experts: what tokens get, and what travels.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "expert_parallel/routing.h"
#include "tests/expert_parallel/moe_run.h"

namespace skipper {
namespace {

constexpr MoeShape kShape{.hidden_size = 32, .intermediate_size = 32, .num_experts = 12, .top_k = 4};
constexpr int kNumRanks = 3;
constexpr uint8_t kShadowLevel = 1;

OperatingPoint shadow_point(float tau) {
  OperatingPoint point{.alpha = {std::vector{1.0f}, std::vector{1.0f}}};
  point.tau_shadow = {std::array{0.0f, tau, tau}, std::array{0.0f, tau, tau}};
  return point;
}

// Every rank has shadows of all experts that it does not own but those left out.
std::vector<ShadowExpert> shadows_of_all(const std::vector<int32_t>& left_out = {}) {
  std::vector<ShadowExpert> shadows;
  for (int32_t rank = 0; rank < kNumRanks; ++rank) {
    for (int32_t expert = 0; expert < kShape.num_experts; ++expert) {
      const bool is_own = expert / (kShape.num_experts / kNumRanks) == rank;
      if (!is_own && std::ranges::find(left_out, expert) == left_out.end()) {
        shadows.push_back({.id = {0, expert}, .rank = rank, .relative_error = 0.1f});
      }
    }
  }
  return shadows;
}

MoeSetup setup_of(const MoeWeights& weights, float tau, const WeightFormat& shadow_format) {
  MoeSetup setup{.weights = weights, .world_size = kNumRanks, .formats = kExactFormats};
  setup.levels.levels.push_back(shadow_point(tau));
  setup.shadows = shadows_of_all();
  setup.shadow_format = shadow_format;
  return setup;
}

TokenBatch batch_at_level(size_t num_tokens, uint8_t level) {
  TokenBatch batch = random_batch(num_tokens, kShape, kNumRanks, 5);
  batch.levels.assign(num_tokens, level);
  return batch;
}

int64_t remote_bytes(const TrafficCounters& counters) {
  return counters.total_payload_bytes(Hop::kNode) + counters.total_payload_bytes(Hop::kNetwork);
}

double relative_distance(const MoeRun& run, const MoeRun& whole) {
  double error = 0.0, norm = 0.0;
  for (size_t t = 0; t < run.tokens.size(); ++t) {
    for (size_t i = 0; i < run.tokens[t].out.size(); ++i) {
      error += std::pow(run.tokens[t].out[i] - whole.tokens[t].out[i], 2);
      norm += std::pow(whole.tokens[t].out[i], 2);
    }
  }
  return error / norm;
}

TEST(ShadowExperts, GiveTheAnswersOfTheOwnersWhenTheyAreNotRounded) {
  const MoeWeights weights = random_moe_weights(kShape, 1);
  const MoeRun whole = run_moe({.weights = weights, .world_size = kNumRanks, .formats = kExactFormats}, batch_at_level(41, 0));
  const MoeRun run = run_moe(setup_of(weights, 9.0f, {}), batch_at_level(41, kShadowLevel));
  EXPECT_LT(relative_distance(run, whole), 1e-10);
  EXPECT_EQ(remote_bytes(run.total()), 0);
  EXPECT_GT(remote_bytes(whole.total()), 0);
  EXPECT_EQ(run.total().pairs_run, whole.total().pairs_run);
  EXPECT_GT(run.total().pairs_on_shadows[0], 41);
}

TEST(ShadowExperts, ErrWithTheirFormat) {
  const MoeWeights weights = random_moe_weights(kShape, 2);
  const MoeRun whole = run_moe({.weights = weights, .world_size = kNumRanks, .formats = kExactFormats}, batch_at_level(60, 0));
  double last = 0.0;
  for (const WeightKind kind : {WeightKind::kInt8, WeightKind::kInt4Asymmetric, WeightKind::kInt3Asymmetric,
                                WeightKind::kInt2Asymmetric}) {
    const MoeRun run = run_moe(setup_of(weights, 9.0f, {kind, 32}), batch_at_level(60, kShadowLevel));
    const double distance = relative_distance(run, whole);
    EXPECT_GT(distance, last);
    EXPECT_LT(distance, 1.0);
    last = distance;
  }
}

TEST(ShadowExperts, GiveTheBitsOfNoneAtAThresholdOfZeroAndToGold) {
  const MoeWeights weights = random_moe_weights(kShape, 3);
  const MoeRun whole = run_moe({.weights = weights, .world_size = kNumRanks, .formats = kExactFormats}, batch_at_level(37, 0));
  const MoeSetup zero = setup_of(weights, 0.0f, {WeightKind::kInt2Asymmetric, 32});
  EXPECT_EQ(run_moe(zero, batch_at_level(37, kShadowLevel)).outputs(), whole.outputs());
  TokenBatch mixed = batch_at_level(37, kShadowLevel);
  for (size_t t = 0; t < mixed.size(); t += 3) mixed.levels[t] = 0;
  const MoeRun run = run_moe(setup_of(weights, 9.0f, {WeightKind::kInt2Asymmetric, 32}), mixed);
  for (size_t t = 0; t < mixed.size(); ++t) {
    if (t % 3 != 0) continue;
    EXPECT_EQ(run.tokens[t].out, whole.tokens[t].out) << t;
  }
  EXPECT_NE(run.tokens[1].out, whole.tokens[1].out);
}

TEST(ShadowExperts, DoNotLetATokenDependOnItsNeighbours) {
  const MoeWeights weights = random_moe_weights(kShape, 4);
  const MoeSetup setup = setup_of(weights, 0.01f, {WeightKind::kInt3Asymmetric, 32});
  const TokenBatch batch = batch_at_level(29, kShadowLevel);
  const MoeRun together = run_moe(setup, batch);
  for (size_t t = 0; t < batch.size(); t += 7) EXPECT_EQ(run_moe(setup, batch.subset({t})).tokens[0].out, together.tokens[t].out);
  EXPECT_GT(remote_bytes(together.total()), 0);
  EXPECT_GT(together.total().pairs_on_shadows[0], 0);
}

TEST(ShadowExperts, SaveTheTripsAndCountThem) {
  const MoeWeights weights = random_moe_weights(kShape, 6);
  const TokenBatch batch = batch_at_level(50, kShadowLevel);
  MoeSetup setup = setup_of(weights, 0.01f, {WeightKind::kInt4Asymmetric, 32});
  setup.shadows = shadows_of_all({1, 6});
  const MoeRun whole = run_moe({.weights = weights, .world_size = kNumRanks, .formats = kExactFormats}, batch_at_level(50, 0));
  const int64_t all = remote_bytes(whole.total());
  const MoeRun run = run_moe(setup, batch);
  const TrafficCounters sum = run.total();
  int64_t saved = 0, on_shadows = 0, skipped = 0;
  for (const auto& direction : sum.saved_bytes) {
    EXPECT_EQ(direction[static_cast<size_t>(Hop::kLocal)], (std::array<int64_t, kNumTokenClasses>{}));
    for (const Hop hop : {Hop::kNode, Hop::kNetwork}) saved += direction[static_cast<size_t>(hop)][0];
  }
  for (const TokenResult& token : run.tokens) {
    on_shadows += std::ranges::count_if(token.kept_ids, [](int32_t id) { return id >= kShape.num_experts; });
    skipped += std::ranges::count(token.kept_ids, kNoExpert);
  }
  EXPECT_EQ(remote_bytes(sum) + saved, all);
  EXPECT_EQ(sum.pairs_on_shadows[0], on_shadows);
  EXPECT_EQ(sum.pairs_skipped[0], skipped);
  EXPECT_GT(on_shadows, skipped);
  EXPECT_GT(skipped, 0);
}

}  // namespace
}  // namespace skipper

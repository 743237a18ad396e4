#include "expert_parallel/shadow_rule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "expert_parallel/expert_skipping.h"
#include "tests/expert_parallel/frozen_routing.h"

namespace skipper {
namespace {

constexpr int32_t kShadow = kNumExperts;  // what the id of a shadow adds

// Sixteen experts on four ranks of two hosts, four each; rank 0 holds the tokens, and shadows of the experts listed.
class Ranks {
 public:
  explicit Ranks(const std::vector<int32_t>& shadows, float error = 0.25f) {
    std::vector<ShadowExpert> copies;
    for (const int32_t expert : shadows) copies.push_back({.id = {kLayer, expert}, .rank = 0, .relative_error = error});
    placement_ = placement_.with_shadows(copies);
  }

  std::vector<int32_t> decide(const TokenPairs& pairs, const OperatingPoint& point,
                              TokenClass token_class = TokenClass::kText) const {
    std::vector<int32_t> kept(pairs.num_slots());
    apply_token_rules(pairs, token_rules(point, {.moe_layer = kLayer, .token_class = token_class}),
                      {.homes = placement_.homes_seen_from(0, kLayer),
                       .topology = topology_,
                       .own_rank = 0,
                       .shadow_errors = placement_.shadow_errors(0, kLayer)},
                      kept);
    return kept;
  }

 private:
  ExpertPlacement placement_ = ExpertPlacement::contiguous(
      {.num_moe_layers = kNumLayers, .num_experts = kNumExperts, .world_size = 4});
  ClusterTopology topology_{{0, 0, 1, 1}};
};

std::vector<int32_t> all_but_own() {
  std::vector<int32_t> experts;
  for (int32_t expert = 4; expert < kShadow; ++expert) experts.push_back(expert);
  return experts;
}

// Alpha is one half.
OperatingPoint thresholds(float node, float network) {
  return point_with([&](OperatingPoint& p) { p.tau_shadow.fill({0.0f, node, network}); });
}

// p = 0.5 own, 0.3 and 0.1 at rank 1 (node), 0.1 at rank 2 (network).
struct OneToken {
  std::vector<int32_t> ids = {0, 4, 5, 8};
  std::vector<float> weights = {0.5f, 0.3f, 0.1f, 0.1f};
  TokenPairs pairs() const { return {ids, weights}; }
};

TEST(ShadowRule, TakesShadowsWhereTheTripIsWorthLessThanTheThreshold) {
  const OneToken token;
  const Ranks ranks(all_but_own());
  // L at rank 1: 0.5 · (0.09 + 0.01) · 0.25 = 0.0125; at rank 2: 0.5 · 0.01 · 0.25 = 0.00125.
  EXPECT_EQ(ranks.decide(token.pairs(), thresholds(0.0124f, 0.0012f)), token.ids);
  EXPECT_EQ(ranks.decide(token.pairs(), thresholds(0.0126f, 0.0012f)), (std::vector<int32_t>{0, kShadow + 4, kShadow + 5, 8}));
  EXPECT_EQ(ranks.decide(token.pairs(), thresholds(0.0124f, 0.0013f)), (std::vector<int32_t>{0, 4, 5, kShadow + 8}));
}

TEST(ShadowRule, LeavesOutPairsWithoutAShadowAndCountsTheirWholeAnswerAsLost) {
  const OneToken token;
  const Ranks ranks({4});
  // L at rank 1: 0.5 · (0.09 · 0.25 + 0.01) = 0.01625.
  EXPECT_EQ(ranks.decide(token.pairs(), thresholds(0.0162f, 0.0f)), token.ids);
  EXPECT_EQ(ranks.decide(token.pairs(), thresholds(0.0163f, 0.0f)), (std::vector<int32_t>{0, kShadow + 4, kNoExpert, 8}));
}

TEST(ShadowRule, IsTheDestinationRuleWhereThereAreNoShadows) {
  const Frozen frozen = random_routing(200, 1, 3);
  const OperatingPoint by_shadow = thresholds(0.02f, 0.05f);
  OperatingPoint by_destination = point_with([](OperatingPoint&) {});
  by_destination.tau_dst = by_shadow.tau_shadow;
  const Skipped one = skip(frozen, table({by_shadow}), {0, 0, 1, 1});
  const Skipped other = skip(frozen, table({by_destination}), {0, 0, 1, 1});
  for (size_t t = 0; t < frozen.num_tokens(); ++t) EXPECT_TRUE(std::ranges::equal(one.ids(t), other.ids(t))) << t;
  EXPECT_GT(total(one.counters.pairs_skipped), 0);
  EXPECT_EQ(total(one.counters.pairs_on_shadows), 0);
}

TEST(ShadowRule, SeesWhatTheDestinationRuleLeft) {
  const OneToken token;
  OperatingPoint point = thresholds(1.0f, 1.0f);
  point.tau_dst[0] = {0.0f, 0.0f, 0.006f};  // over 0.5 · 0.01
  EXPECT_EQ(Ranks(all_but_own()).decide(token.pairs(), point), (std::vector<int32_t>{0, kShadow + 4, kShadow + 5, kNoExpert}));
}

TEST(ShadowRule, LeavesProtectedTokensExemptLayersAndTheFirstExpertsGroupAlone) {
  const OneToken token;
  const Ranks ranks(all_but_own());
  OperatingPoint point = thresholds(1.0f, 1.0f);
  EXPECT_EQ(ranks.decide(token.pairs(), point, TokenClass::kProtected), token.ids);
  point.protect_top1 = true;
  const std::vector<int32_t> first_is_remote = {4, 5, 8, 0};
  EXPECT_EQ(ranks.decide({first_is_remote, token.weights}, point), (std::vector<int32_t>{4, 5, kShadow + 8, 0}));
  point.exempt_layers[0].assign(kNumLayers, 1);
  EXPECT_EQ(ranks.decide(token.pairs(), point), token.ids);
}

TEST(ShadowRule, KeepsMissingExpertsMissingAndTakesTokensOfOneOrNoPair) {
  const Ranks ranks(all_but_own());
  const std::vector<int32_t> ids = {kNoExpert, 9};
  const std::vector<float> weights = {1e30f, 0.5f};
  EXPECT_EQ(ranks.decide({ids, weights}, thresholds(9.0f, 9.0f)), (std::vector<int32_t>{kNoExpert, kShadow + 9}));
  EXPECT_EQ(ranks.decide({{}, {}}, thresholds(9.0f, 9.0f)), std::vector<int32_t>{});
}

std::set<int> trips(const std::vector<int32_t>& ids) {
  std::set<int> ranks;
  for (const int32_t id : ids) {
    if (id >= 4 && id < kShadow) ranks.insert(id / 4);
  }
  return ranks;
}

TEST(ShadowRule, TripsOnlyFallAsTheThresholdRisesAndGroupsStayWhole) {
  const Frozen frozen = random_routing(300, 1, 7);
  const Ranks ranks({4, 6, 8, 9, 10, 11, 14});
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    const TokenPairs pairs{frozen.ids(t), frozen.weights(t)};
    std::set<int> last = trips({pairs.ids.begin(), pairs.ids.end()});
    for (const float tau : {0.0f, 0.001f, 0.004f, 0.01f, 0.03f, 0.1f, 0.5f, 1.0f}) {
      const std::vector<int32_t> kept = ranks.decide(pairs, thresholds(tau, tau), frozen.token_class(t));
      const std::set<int> now = trips(kept);
      EXPECT_TRUE(std::ranges::includes(last, now));
      for (size_t j = 0; j < kTopK; ++j) {
        const int rank = pairs.ids[j] / 4;
        EXPECT_EQ(kept[j] == pairs.ids[j], rank == 0 || now.contains(rank)) << "a group that travels travels whole";
      }
      last = now;
    }
    const bool is_protected = frozen.token_class(t) == TokenClass::kProtected;
    EXPECT_EQ(last, is_protected ? trips({pairs.ids.begin(), pairs.ids.end()}) : std::set<int>{});
  }
}

}  // namespace
}  // namespace skipper

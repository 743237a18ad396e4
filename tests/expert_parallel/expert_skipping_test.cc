#include "expert_parallel/expert_skipping.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "tests/expert_parallel/frozen_routing.h"
#include "tests/support/moe_reference.h"

namespace skipper {
namespace {

void expect_subset(const Skipped& smaller, const Skipped& larger, size_t token) {
  for (size_t j = 0; j < kTopK; ++j) {
    if (smaller.ids(token)[j] == kNoExpert) continue;
    EXPECT_EQ(smaller.ids(token)[j], larger.ids(token)[j]);
  }
}

int64_t total(const std::array<int64_t, kNumTokenClasses>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

TEST(ExpertSkipping, FollowsTheDefinitionForEveryLevelAndClass) {
  auto top1 = point({0.6f, 0.2f}, {0.3f, 0.2f});
  top1.protect_top1 = true;
  const LevelTable levels =
      table({point({0.5f, 0.5f}, {0.0f, 0.0f}), point({0.5f, 0.25f}, {0.1f, 0.05f}), top1});
  const Frozen frozen = random_routing(301, 3, 11);
  const Skipped skipped = skip(frozen, levels);
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    ReferenceRule rule{.is_protected = frozen.token_class(t) == TokenClass::kProtected};
    if (!rule.is_protected) {
      const OperatingPoint& level = levels.levels[frozen.level(t)];
      const auto c = static_cast<size_t>(frozen.token_class(t));
      rule.alpha = level.alpha[c][kLayer];
      rule.tau = level.tau[c];
      rule.protect_top1 = level.protect_top1;
    }
    EXPECT_TRUE(std::ranges::equal(skipped.ids(t), reference_skip(frozen.ids(t), frozen.weights(t), rule))) << t;
  }
  EXPECT_GT(total(skipped.counters.pairs_skipped), 0);
}

TEST(ExpertSkipping, ReturnsTheRoutingItselfAtZeroThresholds) {
  const LevelTable levels = table({point({0.5f, 0.5f}, {0.0f, 0.0f}), point({0.5f, 0.5f}, {2.0f, 2.0f})});
  const Frozen frozen = random_routing(17, 1, 3);  // level 1 is in the table but in no token
  const Skipped skipped = skip(frozen, levels);
  EXPECT_EQ(skipped.kept.expert_ids.bytes(), frozen.routing.expert_ids.bytes());
  EXPECT_EQ(total(skipped.counters.pairs_run), 17 * int64_t{kTopK});
  EXPECT_EQ(total(skipped.counters.pairs_skipped), 0);
}

TEST(ExpertSkipping, KeepsAPairWhoseScoreEqualsTheThreshold) {
  Frozen frozen = random_routing(1, 1, 3);
  frozen.policies.token_class.data<uint8_t>()[0] = static_cast<uint8_t>(TokenClass::kText);
  std::fill_n(frozen.routing.expert_weights.data<float>(), kTopK, 0.25f);
  EXPECT_EQ(skip(frozen, table({point({0.5f, 0.5f}, {0.125f, 0.0f})})).counters.pairs_skipped[0], 0);
  const float above = std::nextafter(0.125f, 1.0f);
  EXPECT_EQ(skip(frozen, table({point({0.5f, 0.5f}, {above, 0.0f})})).counters.pairs_skipped[0], int64_t{kTopK});
}

TEST(ExpertSkipping, NormalizesWeightsThatDoNotSumToOne) {
  Frozen frozen = random_routing(64, 1, 21);
  const LevelTable levels = table({point({0.5f, 0.5f}, {0.12f, 0.12f})});
  const Skipped before = skip(frozen, levels);
  for (float& weight : frozen.routing.expert_weights.span<float>()) weight *= 0.125f;  // exact
  const Skipped after = skip(frozen, levels);
  for (size_t t = 0; t < frozen.num_tokens(); ++t) EXPECT_TRUE(std::ranges::equal(before.ids(t), after.ids(t)));
}

TEST(ExpertSkipping, SparesTheLargestPairWhenAsked) {
  auto everything = point({1.0f, 1.0f}, {2.0f, 2.0f});
  everything.protect_top1 = true;
  const Frozen frozen = random_routing(40, 1, 5);
  const Skipped skipped = skip(frozen, table({everything}));
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    EXPECT_EQ(skipped.ids(t)[0], frozen.ids(t)[0]);
    if (frozen.token_class(t) == TokenClass::kProtected) continue;
    EXPECT_EQ(skipped.ids(t)[1], kNoExpert);
  }
}

TEST(ExpertSkipping, SkipsEverythingButProtectedTokensAboveOne) {
  const Frozen frozen = random_routing(50, 1, 7);
  const Skipped skipped = skip(frozen, table({point({1.0f, 1.0f}, {2.0f, 2.0f})}));
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    const bool is_protected = frozen.token_class(t) == TokenClass::kProtected;
    EXPECT_EQ(std::ranges::count(skipped.ids(t), kNoExpert), is_protected ? 0 : int64_t{kTopK});
  }
  EXPECT_EQ(skipped.counters.pairs_run[0] + skipped.counters.pairs_run[1], 0);
  EXPECT_EQ(skipped.counters.pairs_skipped[2], 0);
}

TEST(ExpertSkipping, NeitherWritesWeightsNorTheRouting) {
  const Frozen frozen = random_routing(20, 1, 9);
  const std::vector<int32_t> ids(frozen.routing.expert_ids.span<int32_t>().begin(),
                                 frozen.routing.expert_ids.span<int32_t>().end());
  const Skipped skipped = skip(frozen, table({point({1.0f, 1.0f}, {0.3f, 0.3f})}));
  EXPECT_EQ(skipped.kept.expert_weights.bytes(), frozen.routing.expert_weights.bytes());
  EXPECT_TRUE(std::ranges::equal(frozen.routing.expert_ids.span<int32_t>(), ids));
}

TEST(ExpertSkipping, LeavesMissingExpertsMissing) {
  Frozen frozen = random_routing(30, 1, 13);
  for (size_t t = 0; t < 30; ++t) {
    frozen.routing.expert_ids.row<int32_t>(static_cast<int64_t>(t))[2] = kNoExpert;
    frozen.routing.expert_weights.row<float>(static_cast<int64_t>(t))[2] = 1e30f;  // must be ignored
  }
  const Skipped skipped = skip(frozen, table({point({1.0f, 1.0f}, {0.01f, 0.01f})}));
  for (size_t t = 0; t < 30; ++t) {
    EXPECT_EQ(skipped.ids(t)[2], kNoExpert);
    EXPECT_EQ(skipped.ids(t)[0], frozen.ids(t)[0]);
  }
  EXPECT_EQ(total(skipped.counters.pairs_run) + total(skipped.counters.pairs_skipped), 30 * 3);
}

TEST(ExpertSkipping, ShrinksTheKeptSetByInclusionAsThresholdsRise) {
  const Frozen frozen = random_routing(200, 1, 17);
  int64_t last_skipped = -1;
  Skipped previous = skip(frozen, table({point({0.5f, 0.5f}, {0.0f, 0.0f})}));
  for (float tau = 0.0f; tau < 0.6f; tau += 0.03f) {
    const Skipped current = skip(frozen, table({point({0.5f, 0.5f}, {tau, 2.0f * tau})}));
    for (size_t t = 0; t < frozen.num_tokens(); ++t) expect_subset(current, previous, t);
    EXPECT_GE(total(current.counters.pairs_skipped), last_skipped);
    last_skipped = total(current.counters.pairs_skipped);
    previous = current;
  }
}

TEST(ExpertSkipping, DecidesOneClassWithoutTheThresholdOfTheOther) {
  const Frozen frozen = random_routing(200, 1, 19);
  const Skipped low = skip(frozen, table({point({0.5f, 0.5f}, {0.1f, 0.02f})}));
  const Skipped high = skip(frozen, table({point({0.5f, 0.5f}, {0.1f, 0.3f})}));
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    if (frozen.token_class(t) != TokenClass::kText) continue;
    EXPECT_TRUE(std::ranges::equal(low.ids(t), high.ids(t)));
  }
  EXPECT_EQ(low.counters.pairs_skipped[0], high.counters.pairs_skipped[0]);
  EXPECT_LT(low.counters.pairs_skipped[1], high.counters.pairs_skipped[1]);
}

// The fraction skipped of each class is the empirical distribution of its scores, taken strictly below the threshold.
TEST(ExpertSkipping, CountsThePairsOfEachClassBelowItsThreshold) {
  const Frozen frozen = random_routing(150, 1, 23);
  std::array<std::vector<float>, 2> scores;
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    const auto c = static_cast<size_t>(frozen.token_class(t));
    if (c > 1) continue;
    const float sum = std::accumulate(frozen.weights(t).begin(), frozen.weights(t).end(), 0.0f) + 1e-20f;
    for (const float weight : frozen.weights(t)) scores[c].push_back(0.5f * (weight / sum));
  }
  for (auto& values : scores) std::sort(values.begin(), values.end());
  for (const float tau_text : {0.0f, 0.04f, 0.1f, 0.5f}) {
    for (const float tau_vision : {0.0f, 0.07f, 0.13f, 2.0f}) {
      const Skipped skipped = skip(frozen, table({point({0.5f, 0.5f}, {tau_text, tau_vision})}));
      const auto below = [](const std::vector<float>& sorted, float tau) {
        return std::lower_bound(sorted.begin(), sorted.end(), tau) - sorted.begin();
      };
      EXPECT_EQ(skipped.counters.pairs_skipped[0], below(scores[0], tau_text));
      EXPECT_EQ(skipped.counters.pairs_skipped[1], below(scores[1], tau_vision));
    }
  }
}

TEST(ExpertSkipping, KeepsDecisionsWhenAlphaAndTauScaleTogether) {
  const Frozen frozen = random_routing(100, 1, 29);
  const Skipped one = skip(frozen, table({point({0.5f, 0.25f}, {0.1f, 0.04f})}));
  const Skipped quarter = skip(frozen, table({point({0.125f, 0.0625f}, {0.025f, 0.01f})}));
  for (size_t t = 0; t < frozen.num_tokens(); ++t) EXPECT_TRUE(std::ranges::equal(one.ids(t), quarter.ids(t)));
}

TEST(ExpertSkipping, KeepsWeightsThatAreNoNumbersAndSkipsWeightsOfZero) {
  Frozen frozen = random_routing(2, 1, 31);
  std::fill_n(frozen.policies.token_class.data<uint8_t>(), 2, uint8_t{0});
  std::fill_n(frozen.routing.expert_weights.row<float>(0), kTopK, std::nanf(""));
  std::fill_n(frozen.routing.expert_weights.row<float>(1), kTopK, 0.0f);
  const Skipped skipped = skip(frozen, table({point({0.5f, 0.5f}, {0.1f, 0.1f})}));
  EXPECT_TRUE(std::ranges::equal(skipped.ids(0), frozen.ids(0)));
  EXPECT_EQ(std::ranges::count(skipped.ids(1), kNoExpert), int64_t{kTopK});  // 0 < tau
}

TEST(ExpertSkipping, TakesNoTokens) {
  const Frozen frozen = random_routing(0, 1, 1);
  EXPECT_EQ(skip(frozen, table({point({0.5f, 0.5f}, {0.1f, 0.1f})})).kept.expert_ids.dim(0), 0);
}

}  // namespace
}  // namespace skipper

// Properties of all rules over frozen routes: what more of a threshold, another scale of weights and odd routes may do.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "tests/expert_parallel/frozen_routing.h"

namespace skipper {
namespace {

// A point of one rule whose every threshold is a multiple of `strength`; 0 skips nothing.
struct ThresholdRule {
  const char* name;
  std::function<void(OperatingPoint& point, float strength)> set;

  LevelTable at(float strength) const {
    return table({point_with([&](OperatingPoint& p) { set(p, strength); })});
  }
};

void set_beta(OperatingPoint& point, PairRule rule, float beta) {
  point.pair_rule = rule;
  point.beta = {std::vector<float>(kNumLayers, beta), std::vector<float>(kNumLayers, 0.7f * beta)};
}

std::vector<float> random_numbers(size_t count, float low, float high) {
  std::mt19937 generator(1);
  std::vector<float> numbers(count);
  for (float& one : numbers) one = std::uniform_real_distribution<float>(low, high)(generator);
  return numbers;
}

void set_destination(OperatingPoint& point, DestinationScore score, float tau) {
  point.destination_score = score;
  point.tau_dst = {std::array{0.0f, tau, 0.5f * tau}, std::array{0.0f, 0.3f * tau, tau}};
}

std::vector<ThresholdRule> threshold_rules() {
  return {
      {"score", [](OperatingPoint& p, float s) { p.tau = {s, 0.4f * s}; }},
      {"scaled score",
       [](OperatingPoint& p, float s) {
         p.tau = {s, 2.0f * s};
         p.expert_scale = random_numbers(kNumLayers * kNumExperts, 0.0f, 3.0f);
       }},
      {"tail mass", [](OperatingPoint& p, float s) { set_beta(p, PairRule::kTailMass, s); }},
      {"relative", [](OperatingPoint& p, float s) { set_beta(p, PairRule::kRelative, s); }},
      {"similar",
       [](OperatingPoint& p, float s) {
         set_beta(p, PairRule::kSimilar, s);
         p.expert_similarity = random_numbers(kNumLayers * kNumExperts * kNumExperts, 0.0f, 2.0f);
       }},
      {"destination, sum", [](OperatingPoint& p, float s) { set_destination(p, DestinationScore::kSum, s); }},
      {"destination, squares", [](OperatingPoint& p, float s) { set_destination(p, DestinationScore::kSumOfSquares, s); }},
      {"pairs and destinations",
       [](OperatingPoint& p, float s) {
         p.tau = {0.5f * s, 0.2f * s};
         p.exempt_local = true;
         set_destination(p, DestinationScore::kSum, s);
       }},
  };
}

TEST(SkippingProperties, MoreOfAThresholdTakesPairsAndGivesNoneBack) {
  const Frozen frozen = random_routing(120, 1, 41);
  for (const ThresholdRule& rule : threshold_rules()) {
    Skipped previous = skip(frozen, rule.at(0.0f), kThreeRanks);
    EXPECT_EQ(total(previous.counters.pairs_skipped), 0) << rule.name;
    for (float strength = 0.02f; strength < 4.0f; strength *= 1.6f) {
      const Skipped current = skip(frozen, rule.at(strength), kThreeRanks);
      for (size_t t = 0; t < frozen.num_tokens(); ++t) {
        for (size_t j = 0; j < kTopK; ++j) {
          const bool comes_back = previous.ids(t)[j] == kNoExpert && current.ids(t)[j] != kNoExpert;
          EXPECT_FALSE(comes_back) << rule.name << " at " << strength << ", token " << t;
        }
      }
      previous = current;
    }
    EXPECT_GT(total(previous.counters.pairs_skipped), 0) << rule.name;
  }
}

TEST(SkippingProperties, ScalingAllWeightsOfTheRoutingChangesNoDecision) {
  const Frozen plain = random_routing(120, 1, 43);
  for (const float factor : {4.0f, 0.25f}) {
    Frozen scaled = random_routing(120, 1, 43);
    for (float& weight : scaled.routing.expert_weights.span<float>()) weight *= factor;
    for (const ThresholdRule& rule : threshold_rules()) {
      for (const float strength : {0.05f, 0.3f, 0.9f}) {
        const Skipped one = skip(plain, rule.at(strength), kThreeRanks), other = skip(scaled, rule.at(strength), kThreeRanks);
        for (size_t t = 0; t < plain.num_tokens(); ++t) {
          EXPECT_TRUE(std::ranges::equal(one.ids(t), other.ids(t))) << rule.name << " at " << strength << ", token " << t;
        }
      }
    }
  }
}

// The scores of a class's pairs, ascending.
std::vector<float> sorted_scores(const Frozen& frozen, TokenClass token_class) {
  std::vector<float> scores;
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    if (frozen.token_class(t) != token_class) continue;
    const float sum = std::accumulate(frozen.weights(t).begin(), frozen.weights(t).end(), 0.0f) + 1e-20f;
    for (const float weight : frozen.weights(t)) scores.push_back(0.5f * (weight / sum));
  }
  std::ranges::sort(scores);
  return scores;
}

TEST(SkippingProperties, TheSkipRatioOfTwoThresholdsIsThatOfTwoSortedLists) {
  const Frozen frozen = random_routing(400, 1, 47);
  const std::vector<float> text = sorted_scores(frozen, TokenClass::kText), vision = sorted_scores(frozen, TokenClass::kVision);
  const auto below = [](const std::vector<float>& scores, float tau) {
    return std::ranges::lower_bound(scores, tau) - scores.begin();
  };
  for (const float tau_text : {0.0f, 0.03f, text[100], 0.2f, 0.6f}) {
    for (const float tau_vision : {0.0f, 0.05f, vision[77], 0.3f, 0.6f}) {
      const Skipped skipped = skip(frozen, table({point({0.5f, 0.5f}, {tau_text, tau_vision})}));
      EXPECT_EQ(skipped.counters.pairs_skipped[0], below(text, tau_text));
      EXPECT_EQ(skipped.counters.pairs_skipped[1], below(vision, tau_vision));
      EXPECT_EQ(skipped.counters.pairs_skipped[2], 0);
    }
  }
}

// Some slots without an expert, some with an expert that the token has already, weights equal or zero.
Frozen odd_routing(uint32_t seed) {
  Frozen frozen = random_routing(60, 1, seed);
  std::mt19937 generator(seed);
  for (int64_t t = 0; t < 60; ++t) {
    int32_t* ids = frozen.routing.expert_ids.row<int32_t>(t);
    float* weights = frozen.routing.expert_weights.row<float>(t);
    for (size_t j = 0; j < kTopK; ++j) {
      if (generator() % 4 == 0) ids[j] = kNoExpert;
      if (generator() % 4 == 0) ids[j] = ids[0];
    }
    if (t % 3 == 0) std::fill_n(weights, kTopK, t % 2 == 0 ? 0.25f : 0.0f);
  }
  return frozen;
}

TEST(SkippingProperties, OddRoutesLosePairsAndGainNone) {
  for (const uint32_t seed : {51u, 53u}) {
    const Frozen frozen = odd_routing(seed);
    for (const ThresholdRule& rule : threshold_rules()) {
      for (const float strength : {0.0f, 0.2f, 3.0f}) {
        const Skipped skipped = skip(frozen, rule.at(strength), kThreeRanks);
        for (size_t t = 0; t < frozen.num_tokens(); ++t) {
          for (size_t j = 0; j < kTopK; ++j) {
            const int32_t id = skipped.ids(t)[j];
            EXPECT_TRUE(id == frozen.ids(t)[j] || (id == kNoExpert && strength > 0.0f)) << rule.name << ", token " << t;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace skipper

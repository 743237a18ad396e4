#include "expert_parallel/pair_rule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "tests/expert_parallel/frozen_routing.h"

namespace skipper {
namespace {

// Per token, one bit a slot: true = kept.
std::vector<bool> kept_slots(const Skipped& skipped, size_t token) {
  std::vector<bool> kept;
  for (const int32_t id : skipped.ids(token)) kept.push_back(id != kNoExpert);
  return kept;
}

LevelTable kept_k_of(float kept_k) {
  return table({point_with([&](OperatingPoint& p) {
    p.pair_rule = PairRule::kTopK;
    p.kept_k = {kept_k, kept_k};
  })});
}

LevelTable beta_of(PairRule rule, float beta) {
  return table({point_with([&](OperatingPoint& p) {
    p.pair_rule = rule;
    p.beta = {std::vector<float>(kNumLayers, beta), std::vector<float>(kNumLayers, beta)};
  })});
}

// Experts of a layer are alike by 0 to 2, themselves as others.
std::vector<float> random_similarity(uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<float> similarity(kNumLayers * kNumExperts * kNumExperts);
  for (float& one : similarity) one = std::uniform_real_distribution<float>(0.0f, 2.0f)(generator);
  return similarity;
}

LevelTable similar_of(float beta, const std::vector<float>& similarity) {
  LevelTable levels = beta_of(PairRule::kSimilar, beta);
  levels.levels[0].expert_similarity = similarity;
  return levels;
}

TEST(PairRule, ScoresAreScaledByTheirExpert) {
  const Frozen frozen = text_routing(60, 3);
  const LevelTable plain = table({point({0.5f, 0.5f}, {0.1f, 0.1f})});
  LevelTable scaled = plain;
  scaled.levels[0].expert_scale.assign(kNumLayers * kNumExperts, 1.0f);
  float* of_layer = scaled.levels[0].expert_scale.data() + kLayer * kNumExperts;
  of_layer[3] = 0.0f;    // never worth it
  of_layer[5] = 100.0f;  // always worth it
  const Skipped before = skip(frozen, plain), after = skip(frozen, scaled);
  int num_threes = 0;
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    for (size_t j = 0; j < kTopK; ++j) {
      const int32_t expert = frozen.ids(t)[j];
      num_threes += expert == 3 ? 1 : 0;
      const int32_t expected = expert == 3 ? kNoExpert : expert == 5 ? expert : before.ids(t)[j];
      EXPECT_EQ(after.ids(t)[j], expected);
    }
  }
  EXPECT_GT(num_threes, 0);
}

TEST(PairRule, GeneratedTextHasAThresholdOfItsOwn) {
  Frozen frozen = random_routing(200, 1, 5);
  LevelTable levels = table({point({0.5f, 0.5f}, {0.1f, 0.1f})});
  levels.levels[0].tau_generated = 0.0f;
  const Skipped prompt = skip(frozen, levels);
  frozen.set_phase(TokenPhase::kGenerated);
  const Skipped generated = skip(frozen, levels);
  EXPECT_GT(prompt.counters.pairs_skipped[0], 0);
  EXPECT_EQ(generated.counters.pairs_skipped[0], 0);
  EXPECT_EQ(generated.counters.pairs_skipped[1], prompt.counters.pairs_skipped[1]);
  levels.levels[0].tau_generated.reset();
  EXPECT_EQ(skip(frozen, levels).counters.pairs_skipped[0], prompt.counters.pairs_skipped[0]);
}

TEST(PairRule, TopKKeepsTheFirstSlots) {
  const Frozen frozen = text_routing(20, 7);
  for (const int k : {1, 2, 3, 4, 9}) {
    const Skipped skipped = skip(frozen, kept_k_of(static_cast<float>(k)));
    for (size_t t = 0; t < frozen.num_tokens(); ++t) {
      for (size_t j = 0; j < kTopK; ++j) EXPECT_EQ(kept_slots(skipped, t)[j], static_cast<int>(j) < k);
    }
  }
  EXPECT_EQ(total(skip(frozen, kept_k_of(0.0f)).counters.pairs_skipped), 0);
}

TEST(PairRule, FractionsOfTopKGoToThatShareOfTheTokens) {
  const Frozen frozen = text_routing(2000, 9);
  int64_t last_run = 0;
  for (const float k : {0.25f, 1.0f, 1.3f, 1.7f, 2.0f}) {
    const Skipped skipped = skip(frozen, kept_k_of(k));
    EXPECT_NEAR(static_cast<double>(skipped.counters.pairs_run[0]) / 2000.0, k, 0.05);
    EXPECT_GT(skipped.counters.pairs_run[0], last_run);
    last_run = skipped.counters.pairs_run[0];
  }
}

TEST(PairRule, RaisingKeptKOnlyAddsPairs) {
  const Frozen frozen = text_routing(100, 11);
  Skipped previous = skip(frozen, kept_k_of(0.1f));
  for (float k = 0.2f; k < 4.0f; k += 0.3f) {
    const Skipped current = skip(frozen, kept_k_of(k));
    for (size_t t = 0; t < frozen.num_tokens(); ++t) {
      for (size_t j = 0; j < kTopK; ++j) EXPECT_LE(kept_slots(previous, t)[j], kept_slots(current, t)[j]);
    }
    previous = current;
  }
}

// Written from the definition: the smallest j whose tail is below beta, tails summed in double.
TEST(PairRule, TailMassSkipsTheLongestTailBelowBeta) {
  const Frozen frozen = text_routing(300, 13);
  for (const float beta : {0.05f, 0.2f, 0.5f, 0.9f}) {
    const Skipped skipped = skip(frozen, beta_of(PairRule::kTailMass, beta));
    for (size_t t = 0; t < frozen.num_tokens(); ++t) {
      const double sum = std::accumulate(frozen.weights(t).begin(), frozen.weights(t).end(), 0.0);
      size_t first = kTopK;
      for (size_t j = kTopK; j-- > 0;) {
        const double tail = std::accumulate(frozen.weights(t).begin() + static_cast<int64_t>(j), frozen.weights(t).end(), 0.0);
        if (tail / sum < beta) first = j;
      }
      for (size_t j = 0; j < kTopK; ++j) EXPECT_EQ(kept_slots(skipped, t)[j], j < first) << t;
    }
  }
}

TEST(PairRule, TailMassOfOneLeavesTheFirstPairAndMoreTakesAll) {
  const Frozen frozen = text_routing(50, 15);
  EXPECT_EQ(skip(frozen, beta_of(PairRule::kTailMass, 1.0f)).counters.pairs_run[0], 50);
  EXPECT_EQ(skip(frozen, beta_of(PairRule::kTailMass, 1.5f)).counters.pairs_run[0], 0);
}

TEST(PairRule, RelativeComparesWithTheFirstPair) {
  const Frozen frozen = text_routing(100, 17);
  for (const float beta : {0.1f, 0.5f, 1.0f}) {
    const Skipped skipped = skip(frozen, beta_of(PairRule::kRelative, beta));
    for (size_t t = 0; t < frozen.num_tokens(); ++t) {
      EXPECT_TRUE(kept_slots(skipped, t)[0]);
      for (size_t j = 1; j < kTopK; ++j) {
        const double ratio = double{frozen.weights(t)[j]} / double{frozen.weights(t)[0]};
        if (std::abs(ratio - double{beta}) < 1e-5) continue;
        EXPECT_EQ(kept_slots(skipped, t)[j], ratio > double{beta});
      }
    }
  }
}

TEST(PairRule, ExpertsLikeTheFirstAreSkippedAtASmallerDistanceFromIt) {
  const Frozen frozen = text_routing(200, 29);
  const std::vector<float> similarity = random_similarity(1);
  const float* of_layer = similarity.data() + kLayer * kNumExperts * kNumExperts;
  for (const float beta : {0.2f, 0.7f, 3.0f}) {
    const Skipped skipped = skip(frozen, similar_of(beta, similarity));
    for (size_t t = 0; t < frozen.num_tokens(); ++t) {
      EXPECT_TRUE(kept_slots(skipped, t)[0]);
      for (size_t j = 1; j < kTopK; ++j) {
        const auto pair = static_cast<size_t>(frozen.ids(t)[0]) * kNumExperts + static_cast<size_t>(frozen.ids(t)[j]);
        const double limit = double{beta} * double{of_layer[pair]} * double{frozen.weights(t)[0]};
        if (std::abs(double{frozen.weights(t)[j]} - limit) < 1e-5) continue;
        EXPECT_EQ(kept_slots(skipped, t)[j], double{frozen.weights(t)[j]} > limit);
      }
    }
  }
}

TEST(PairRule, SimilarExpertsAllOfOneMeasureAreTheRelativeRule) {
  const Frozen frozen = text_routing(100, 31);
  const std::vector<float> alike(kNumLayers * kNumExperts * kNumExperts, 1.0f);
  for (const float beta : {0.0f, 0.1f, 0.5f, 0.99f}) {
    const Skipped similar = skip(frozen, similar_of(beta, alike)), relative = skip(frozen, beta_of(PairRule::kRelative, beta));
    for (size_t t = 0; t < frozen.num_tokens(); ++t) EXPECT_TRUE(std::ranges::equal(similar.ids(t), relative.ids(t)));
  }
}

TEST(PairRule, RaisingBetaOfSimilarExpertsOnlyTakesPairs) {
  const Frozen frozen = text_routing(100, 33);
  const std::vector<float> similarity = random_similarity(2);
  Skipped previous = skip(frozen, similar_of(0.0f, similarity));
  EXPECT_EQ(total(previous.counters.pairs_skipped), 0);
  EXPECT_EQ(previous.kept.expert_ids.bytes(), frozen.routing.expert_ids.bytes()) << "nothing to skip: the routing itself";
  for (float beta = 0.05f; beta < 40.0f; beta *= 1.7f) {
    const Skipped current = skip(frozen, similar_of(beta, similarity));
    for (size_t t = 0; t < frozen.num_tokens(); ++t) {
      for (size_t j = 0; j < kTopK; ++j) EXPECT_GE(kept_slots(previous, t)[j], kept_slots(current, t)[j]);
    }
    previous = current;
  }
  EXPECT_LT(total(previous.counters.pairs_run), 110) << "hardly more than the first of each";
}

TEST(PairRule, DecisionsBelongToTheTokenAlone) {
  const Frozen frozen = random_routing(61, 5, 19);
  LevelTable levels = kept_k_of(1.5f);
  for (const PairRule rule : {PairRule::kTailMass, PairRule::kRelative}) levels.levels.push_back(beta_of(rule, 0.3f).levels[0]);
  levels.levels.push_back(point({0.5f, 0.5f}, {0.1f, 0.05f}));
  levels.levels.push_back(similar_of(0.5f, random_similarity(3)).levels[0]);
  const Skipped together = skip(frozen, levels);
  std::vector<size_t> reversed(frozen.num_tokens());
  for (size_t i = 0; i < reversed.size(); ++i) reversed[i] = reversed.size() - 1 - i;
  const Skipped permuted = skip(frozen.subset(reversed), levels);
  const Skipped on_three_ranks = skip(frozen, levels, {0, 0, 1});
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    const Skipped alone = skip(frozen.subset({t}), levels);
    EXPECT_TRUE(std::ranges::equal(alone.ids(0), together.ids(t)));
    EXPECT_TRUE(std::ranges::equal(permuted.ids(reversed[t]), together.ids(t)));
    EXPECT_TRUE(std::ranges::equal(on_three_ranks.ids(t), together.ids(t)));
  }
}

TEST(PairRule, RareCasesKeepEverything) {
  const Frozen frozen = text_routing(100, 21);
  LevelTable levels = table({point({1.0f, 1.0f}, {2.0f, 2.0f})});
  levels.levels[0].protect_margin = 0.2f;
  const Skipped skipped = skip(frozen, levels);
  int num_rare = 0;
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    const bool is_rare = frozen.weights(t)[0] - frozen.weights(t)[1] < 0.2f;
    num_rare += is_rare ? 1 : 0;
    EXPECT_EQ(std::ranges::count(skipped.ids(t), kNoExpert), is_rare ? 0 : int64_t{kTopK});
  }
  EXPECT_GT(num_rare, 0);
  EXPECT_LT(num_rare, 100);
}

TEST(PairRule, EveryRuleSparesTheFirstPairWhenAsked) {
  const Frozen frozen = text_routing(30, 23);
  std::vector<LevelTable> harsh = {kept_k_of(0.001f), beta_of(PairRule::kTailMass, 2.0f), beta_of(PairRule::kRelative, 2.0f)};
  for (LevelTable& levels : harsh) {
    EXPECT_LE(skip(frozen, levels).counters.pairs_run[0], 1);
    levels.levels[0].protect_top1 = true;
    const Skipped skipped = skip(frozen, levels);
    EXPECT_EQ(skipped.counters.pairs_run[0], 30);
    for (size_t t = 0; t < frozen.num_tokens(); ++t) EXPECT_EQ(skipped.ids(t)[0], frozen.ids(t)[0]);
  }
}

TEST(PairRule, PairsOfTheOwnRankAreSparedWhenAsked) {
  const Frozen frozen = text_routing(64, 25);
  LevelTable levels = table({point({1.0f, 1.0f}, {2.0f, 2.0f})});
  levels.levels[0].exempt_local = true;
  const Skipped skipped = skip(frozen, levels, {0, 0, 1});
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    for (size_t j = 0; j < kTopK; ++j) {
      const bool is_local = rank_of_expert(frozen.ids(t)[j], 3) == static_cast<int>(t % 3);
      EXPECT_EQ(kept_slots(skipped, t)[j], is_local);
    }
  }
}

TEST(PairRule, WeightsThatAreNoNumbersKeepTheirPairsUnderEveryRule) {
  const float bad[] = {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  Frozen frozen = text_routing(3, 27);
  for (size_t t = 0; t < 3; ++t) frozen.routing.expert_weights.row<float>(static_cast<int64_t>(t))[t] = bad[t];
  frozen.set_phase(TokenPhase::kGenerated);
  LevelTable everything = kept_k_of(0.001f);
  everything.levels[0].tau_dst = {std::array{0.0f, 9.0f, 9.0f}, std::array{0.0f, 9.0f, 9.0f}};
  everything.levels[0].rank_capacity = 1.0f;
  everything.levels[0].decode_base_k = 1;
  everything.levels[0].decode_rank_experts = 1;
  everything.levels[0].renormalize = true;
  const Skipped skipped = skip(frozen, everything, {0, 1});
  const Skipped similar = skip(frozen, similar_of(9.0f, random_similarity(4)));
  for (size_t t = 0; t < 3; ++t) {
    EXPECT_TRUE(std::ranges::equal(skipped.ids(t), frozen.ids(t)));
    EXPECT_TRUE(std::ranges::equal(similar.ids(t), frozen.ids(t)));
  }
}

}  // namespace
}  // namespace skipper

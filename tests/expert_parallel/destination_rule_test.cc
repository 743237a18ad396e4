#include "expert_parallel/destination_rule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "tests/expert_parallel/frozen_routing.h"

namespace skipper {
namespace {

constexpr float kAlpha = 0.5f;

LevelTable thresholds(float node, float network, DestinationScore score = DestinationScore::kSumOfSquares) {
  return table({point_with([&](OperatingPoint& p) {
    p.tau_dst = {std::array{0.0f, node, network}, std::array{0.0f, node, network}};
    p.destination_score = score;
  })});
}

// S of each remote rank that the token goes to, in double.
std::map<int, double> scores_of(const Frozen& frozen, size_t token, size_t num_ranks, DestinationScore score) {
  std::map<int, double> scores;
  for (size_t j = 0; j < kTopK; ++j) {
    const int rank = rank_of_expert(frozen.ids(token)[j], num_ranks);
    const double p = frozen.weights(token)[j];
    if (rank == static_cast<int>(token % num_ranks)) continue;
    scores[rank] += double{kAlpha} * (score == DestinationScore::kSum ? p : p * p);
  }
  return scores;
}

std::set<int> remote_ranks(const Frozen& frozen, const Skipped& skipped, size_t token, size_t num_ranks) {
  std::set<int> ranks;
  for (size_t j = 0; j < kTopK; ++j) {
    const int rank = rank_of_expert(frozen.ids(token)[j], num_ranks);
    if (skipped.ids(token)[j] != kNoExpert && rank != static_cast<int>(token % num_ranks)) ranks.insert(rank);
  }
  return ranks;
}

TEST(DestinationRule, DropsGroupsBelowTheThresholdOfTheirHopAndNeverTheLocalOne) {
  const Frozen frozen = text_routing(300, 3);
  for (const DestinationScore score : {DestinationScore::kSumOfSquares, DestinationScore::kSum}) {
    const double node = 0.02, network = 0.06;
    const Skipped skipped = skip(frozen, thresholds(0.02f, 0.06f, score), {0, 0, 1, 1});
    for (size_t t = 0; t < frozen.num_tokens(); ++t) {
      const auto scores = scores_of(frozen, t, 4, score);
      for (size_t j = 0; j < kTopK; ++j) {
        const int rank = rank_of_expert(frozen.ids(t)[j], 4), own = static_cast<int>(t % 4);
        const double tau = rank / 2 == own / 2 ? node : network;
        const bool is_kept = rank == own || scores.at(rank) >= tau;
        if (rank != own && std::abs(scores.at(rank) - tau) < 1e-6) continue;
        EXPECT_EQ(skipped.ids(t)[j], is_kept ? frozen.ids(t)[j] : kNoExpert) << t;
      }
    }
    EXPECT_GT(skipped.counters.pairs_skipped[0], 0);
  }
}

TEST(DestinationRule, SkipsNothingAtZeroOrOnOneRank) {
  const Frozen frozen = random_routing(40, 1, 5);
  EXPECT_EQ(total(skip(frozen, thresholds(0.0f, 0.0f), {0, 0, 1, 1}).counters.pairs_skipped), 0);
  EXPECT_EQ(total(skip(frozen, thresholds(9.0f, 9.0f)).counters.pairs_skipped), 0);
}

TEST(DestinationRule, KeepsTheLocalGroupEvenWithAThreshold) {
  const Frozen frozen = text_routing(40, 6);
  LevelTable levels = thresholds(9.0f, 9.0f);
  levels.levels[0].tau_dst[0][static_cast<size_t>(Hop::kLocal)] = 9.0f;
  const Skipped skipped = skip(frozen, levels, {0, 0});
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    for (size_t j = 0; j < kTopK; ++j) {
      const bool is_local = rank_of_expert(frozen.ids(t)[j], 2) == static_cast<int>(t % 2);
      EXPECT_EQ(skipped.ids(t)[j] != kNoExpert, is_local);
    }
  }
}

TEST(DestinationRule, IsThePairRuleOnRemoteExpertsWhenEveryRankOwnsOne) {
  const Frozen frozen = random_routing(50, 1, 7);
  std::vector<int> nodes(kNumExperts);
  LevelTable pairs = table({point({kAlpha, kAlpha}, {0.1f, 0.1f})});
  pairs.levels[0].exempt_local = true;
  const Skipped by_pair = skip(frozen, pairs, nodes);
  const Skipped by_destination = skip(frozen, thresholds(0.1f, 0.1f, DestinationScore::kSum), nodes);
  for (size_t t = 0; t < frozen.num_tokens(); ++t) EXPECT_TRUE(std::ranges::equal(by_pair.ids(t), by_destination.ids(t)));
  EXPECT_GT(total(by_pair.counters.pairs_skipped), 0);
}

TEST(DestinationRule, SeesOnlyThePairsThatThePairRuleLeft) {
  const Frozen frozen = text_routing(200, 9);
  LevelTable both = thresholds(0.03f, 0.03f, DestinationScore::kSum);
  both.levels[0].tau = {0.05f, 0.05f};
  const Skipped after_pairs = skip(frozen, table({point({kAlpha, kAlpha}, {0.05f, 0.05f})}), {0, 0, 0});
  const Skipped skipped = skip(frozen, both, {0, 0, 0});
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    // What the pair rule left scores at least 0.05, so no group is below 0.03.
    EXPECT_TRUE(std::ranges::equal(after_pairs.ids(t), skipped.ids(t)));
  }
  EXPECT_LT(skip(frozen, thresholds(0.03f, 0.03f, DestinationScore::kSum), {0, 0, 0}).counters.pairs_skipped[0],
            after_pairs.counters.pairs_skipped[0]);
}

TEST(DestinationRule, KeepsTheGroupOfTheFirstExpertWhenAsked) {
  const Frozen frozen = text_routing(60, 11);
  LevelTable levels = thresholds(9.0f, 9.0f);
  levels.levels[0].protect_top1 = true;
  const Skipped skipped = skip(frozen, levels, {0, 0, 0, 0});
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    const int first = rank_of_expert(frozen.ids(t)[0], 4), own = static_cast<int>(t % 4);
    for (size_t j = 0; j < kTopK; ++j) {
      const int rank = rank_of_expert(frozen.ids(t)[j], 4);
      EXPECT_EQ(skipped.ids(t)[j] != kNoExpert, rank == own || rank == first);
    }
  }
}

TEST(DestinationRule, RowsSentNeverRiseWithTheThreshold) {
  const Frozen frozen = random_routing(150, 1, 13);
  size_t last = frozen.num_tokens() * kTopK;
  for (const float tau : {0.0f, 0.01f, 0.03f, 0.06f, 0.1f, 0.3f, 1.0f}) {
    const Skipped skipped = skip(frozen, thresholds(tau, tau), {0, 0, 0, 0});
    size_t rows = 0;
    for (size_t t = 0; t < frozen.num_tokens(); ++t) rows += remote_ranks(frozen, skipped, t, 4).size();
    EXPECT_LE(rows, last);
    last = rows;
  }
  EXPECT_GT(last, 0u);  // protected tokens
}

// The exchange argument: among all sets of as many (token, destination) groups, none loses less than the one that is dropped.
TEST(DestinationRule, LosesLeastAmongAllChoicesOfAsManyGroups) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    const Frozen frozen = text_routing(4, 100 + seed);
    const Skipped skipped = skip(frozen, thresholds(0.05f, 0.05f), {0, 0, 0, 0});
    std::vector<double> scores;
    double lost = 0.0;
    size_t num_dropped = 0;
    for (size_t t = 0; t < frozen.num_tokens(); ++t) {
      const auto kept = remote_ranks(frozen, skipped, t, 4);
      for (const auto& [rank, score] : scores_of(frozen, t, 4, DestinationScore::kSumOfSquares)) {
        scores.push_back(score);
        if (kept.contains(rank)) continue;
        lost += score;
        ++num_dropped;
      }
    }
    ASSERT_LE(scores.size(), 16u);
    double least = 1e9;
    for (uint32_t choice = 0; choice < uint32_t{1} << scores.size(); ++choice) {
      if (static_cast<size_t>(__builtin_popcount(choice)) != num_dropped) continue;
      double sum = 0.0;
      for (size_t g = 0; g < scores.size(); ++g) sum += (choice >> g & 1) != 0 ? scores[g] : 0.0;
      least = std::min(least, sum);
    }
    EXPECT_NEAR(lost, least, 1e-9);
  }
}

}  // namespace
}  // namespace skipper

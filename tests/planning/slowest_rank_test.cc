#include "planning/slowest_rank.h"

#include <gtest/gtest.h>

#include <vector>

namespace skipper {
namespace {

// Experts dealt out in turn, all alike.
std::vector<ExpertTime> even_experts(int num_experts, int num_ranks, double use) {
  std::vector<ExpertTime> experts;
  for (int32_t i = 0; i < num_experts; ++i) experts.push_back({.rank = i % num_ranks, .use = use, .seconds = 1.0});
  return experts;
}

double mean_over_layers(const std::vector<ExpertTime>& experts, int num_ranks) {
  constexpr int kNumLayers = 100;
  std::mt19937 generator(1);
  double sum = 0.0;
  for (int layer = 0; layer < kNumLayers; ++layer) sum += mean_slowest_seconds(experts, num_ranks, generator);
  return sum / kNumLayers;
}

TEST(SlowestRank, OneRankTakesTheSumOfItsExperts) {
  EXPECT_DOUBLE_EQ(mean_over_layers({{0, 0.25, 2.0}, {0, 1.0, 3.0}, {0, 0.0, 7.0}}, 1), 3.5);
}

TEST(SlowestRank, HasTheMeanOfTheFullerRank) {
  // Of 4 among 32 on two ranks, 2, 3 or 4 are at the fuller one: 2 · .4004 + 3 · .4983 + 4 · .1012.
  EXPECT_NEAR(mean_over_layers(even_experts(32, 2, 4.0 / 32), 2), 2.7007, 0.02);
  EXPECT_DOUBLE_EQ(mean_over_layers(even_experts(32, 2, 1.0 / 32), 2), 1.0) << "one expert is at one rank";
}

TEST(SlowestRank, ARankThatAlwaysHasTheMostIsWaitedForAlone) {
  std::vector<ExpertTime> experts = even_experts(8, 2, 0.25);
  experts[0] = {.rank = 0, .use = 1.0, .seconds = 100.0};
  double at_first = 0.0;
  for (const ExpertTime& one : experts) at_first += one.rank == 0 ? one.use * one.seconds : 0.0;
  EXPECT_NEAR(mean_over_layers(experts, 2), at_first, 0.02);
}

TEST(SlowestRank, ExpertsThatAllTokensUseLeaveNothingToChance) {
  EXPECT_DOUBLE_EQ(mean_over_layers({{0, 1.0, 2.0}, {1, 1.0, 3.0}, {1, 1.0, 0.5}}, 2), 3.5);
}

}  // namespace
}  // namespace skipper

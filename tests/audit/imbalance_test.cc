#include "audit/imbalance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace skipper {
namespace {

using Loads = std::vector<int64_t>;

// From the definition: Σ_i Σ_j |x_i − x_j| ÷ (2 n² · mean).
double gini_of_all_pairs(const Loads& loads) {
  double differences = 0.0, sum = 0.0;
  for (const int64_t a : loads) {
    sum += static_cast<double>(a);
    for (const int64_t b : loads) differences += std::abs(static_cast<double>(a - b));
  }
  return differences / (2.0 * static_cast<double>(loads.size()) * sum);
}

TEST(Imbalance, EvenLoadIsOneAndZero) {
  EXPECT_DOUBLE_EQ(max_over_mean(Loads{7, 7, 7}), 1.0);
  EXPECT_DOUBLE_EQ(gini(Loads{7, 7, 7}), 0.0);
}

TEST(Imbalance, NoLoadAndNobodyCountAsEven) {
  EXPECT_DOUBLE_EQ(max_over_mean(Loads{0, 0}), 1.0);
  EXPECT_DOUBLE_EQ(gini(Loads{0, 0}), 0.0);
  EXPECT_DOUBLE_EQ(max_over_mean(Loads{}), 1.0);
  EXPECT_DOUBLE_EQ(gini(Loads{}), 0.0);
}

TEST(Imbalance, OneCarrierIsEvenAlone) {
  EXPECT_DOUBLE_EQ(max_over_mean(Loads{5}), 1.0);
  EXPECT_DOUBLE_EQ(gini(Loads{5}), 0.0);
}

TEST(Imbalance, OneOfManyCarryingAllIsTheWorst) {
  EXPECT_DOUBLE_EQ(max_over_mean(Loads{0, 0, 12, 0, 0}), 5.0);
  EXPECT_DOUBLE_EQ(gini(Loads{0, 0, 12, 0, 0}), 0.8);
}

TEST(Imbalance, MatchesValuesWorkedOutByHand) {
  // The pairs of the last differ by 1 + 2 + 7 + 1 + 6 + 5 = 22.
  EXPECT_DOUBLE_EQ(max_over_mean(Loads{9, 2, 3, 2}), 2.25);
  EXPECT_DOUBLE_EQ(gini(Loads{1, 2, 3, 4}), 0.25);
  EXPECT_DOUBLE_EQ(gini(Loads{1, 2, 3, 8}), 22.0 * 2.0 / (2.0 * 4.0 * 14.0));
}

TEST(Imbalance, GiniMatchesItsDefinitionWhateverTheOrder) {
  std::mt19937 generator(3);
  for (const size_t n : {1u, 2u, 7u, 32u}) {
    Loads loads(n);
    for (int64_t& load : loads) load = static_cast<int64_t>(generator() % 100) + 1;
    EXPECT_NEAR(gini(loads), gini_of_all_pairs(loads), 1e-12) << n;
  }
}

TEST(Imbalance, RanksCarryWhatTheirExpertsDo) {
  const auto placement = ExpertPlacement::contiguous({.num_moe_layers = 1, .num_experts = 5, .world_size = 2});
  EXPECT_EQ(loads_of_ranks(Loads{1, 2, 4, 8, 16}, placement.homes(0), 2), (Loads{3, 28}));
  const LoadBalance balance = balance_of(Loads{1, 2, 4, 8, 16}, placement.homes(0), 2);
  EXPECT_EQ(balance.num_pairs, 31);
  EXPECT_DOUBLE_EQ(balance.rank_max_over_mean, 28.0 * 2.0 / 31.0);
  EXPECT_DOUBLE_EQ(balance.rank_gini, 25.0 / 62.0);
  EXPECT_DOUBLE_EQ(balance.expert_max_over_mean, 16.0 * 5.0 / 31.0);
}

TEST(Imbalance, RanksWithoutExpertsCarryNothing) {
  const auto placement = ExpertPlacement::contiguous({.num_moe_layers = 1, .num_experts = 2, .world_size = 3});
  EXPECT_DOUBLE_EQ(balance_of(Loads{4, 4}, placement.homes(0), 3).rank_max_over_mean, 1.5);
}

}  // namespace
}  // namespace skipper

#include "planning/tier_knapsack.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "planning/format_knapsack.h"

namespace skipper {
namespace {

using Items = std::vector<BudgetedItem>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

double exhaustive(const Items& items, size_t first, const BudgetValues& left) {
  for (const double value : left) {
    if (value < 0.0) return kInfinity;
  }
  if (first == items.size()) return 0.0;
  double best = kInfinity;
  for (const BudgetedChoice& choice : items[first]) {
    BudgetValues rest = left;
    for (size_t k = 0; k < kMaxBudgets; ++k) rest[k] -= choice.uses[k];
    best = std::min(best, choice.cost + exhaustive(items, first + 1, rest));
  }
  return best;
}

void expect_consistent(const Items& items, const BudgetedSolution& solution, const BudgetValues& budgets) {
  BudgetValues uses{};
  double cost = 0.0;
  ASSERT_EQ(solution.choices.size(), items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const BudgetedChoice& choice = items[i].at(static_cast<size_t>(solution.choices[i]));
    cost += choice.cost;
    for (size_t k = 0; k < kMaxBudgets; ++k) uses[k] += choice.uses[k];
  }
  EXPECT_DOUBLE_EQ(cost, solution.cost);
  for (size_t k = 0; k < kMaxBudgets; ++k) EXPECT_LE(uses[k], budgets[k] * (1 + 1e-9)) << k;
  EXPECT_LE(solution.bound, solution.cost);
}

// Six formats on a device, in host memory or on disk. Cost: time of use. Budgets: loss, device, host, disk.
Items tiered_experts(std::mt19937& random, int count) {
  std::lognormal_distribution<double> use(0.0, 1.0), sensitivity(0.0, 0.8);
  Items items(static_cast<size_t>(count));
  for (BudgetedItem& item : items) {
    const double used = use(random), sensitive = used * sensitivity(random);
    for (const double bits : {2.75, 3.75, 4.25, 4.75, 8.25, 16.0}) {
      const double loss = bits == 16.0 ? 0.0 : sensitive * std::pow(4.0, -bits);
      item.push_back({used * bits / 30.0, {loss, bits, 0, 0}});
      item.push_back({used * bits / 3.0, {loss, 0, bits, 0}});
      item.push_back({used * bits / 0.3, {loss, 0, 0, bits}});
    }
  }
  return items;
}

TEST(TierKnapsack, BoundsAndApproachesWhatExhaustiveSearchFinds) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> value(0.0, 10.0);
  int num_found = 0, num_possible = 0;
  for (int round = 0; round < 300; ++round) {
    Items items(static_cast<size_t>(1 + round % 6));
    for (BudgetedItem& item : items) {
      for (int c = 0; c < 1 + round % 5; ++c) {
        item.push_back({value(random), {value(random), value(random), value(random), value(random)}});
      }
    }
    BudgetValues budgets{};
    for (double& budget : budgets) budget = value(random) * static_cast<double>(items.size()) * 1.1 + 1.0;
    const double best = exhaustive(items, 0, budgets);
    const auto solution = solve_with_budgets(items, budgets);
    num_possible += std::isfinite(best) ? 1 : 0;
    if (!solution) continue;
    ++num_found;
    expect_consistent(items, *solution, budgets);
    EXPECT_GE(solution->cost, best * (1 - 1e-9));
    EXPECT_LE(solution->bound, best * (1 + 1e-9));
  }
  EXPECT_GT(num_possible, 80);
  // A handful of large items is the hardest case of rounding.
  EXPECT_GT(num_found, num_possible * 3 / 4);
}

TEST(TierKnapsack, AgreesWithTheKnapsackOfOneBudget) {
  std::mt19937 random(2);
  std::uniform_int_distribution<int64_t> size(1, 1000);
  std::lognormal_distribution<double> cost(0.0, 1.5);
  Items items(400);
  std::vector<KnapsackItem> plain(400);
  for (size_t i = 0; i < items.size(); ++i) {
    for (int c = 0; c < 5; ++c) {
      const KnapsackChoice choice{size(random), cost(random)};
      plain[i].push_back(choice);
      items[i].push_back({choice.cost, {static_cast<double>(choice.size), 0, 0, 0}});
    }
  }
  const auto expected = solve_knapsack(plain, 100000);
  const auto solution = solve_with_budgets(items, {100000, 0, 0, 0});
  ASSERT_TRUE(solution);
  EXPECT_NEAR(solution->bound / expected->bound, 1.0, 1e-6);
  EXPECT_NEAR(solution->cost / expected->selection.cost, 1.0, 1e-3);
}

TEST(TierKnapsack, IsNearTheBoundFor6144ExpertsInThreeTiers) {
  std::mt19937 random(3);
  const Items items = tiered_experts(random, 6144);
  const double experts = 6144.0;
  // Loss of about four bits everywhere; memory for part of the experts.
  const BudgetValues budgets{experts * 0.01, experts * 1.5, experts * 2.0, experts * 16.0};
  const auto solution = solve_with_budgets(items, budgets);
  ASSERT_TRUE(solution);
  expect_consistent(items, *solution, budgets);
  EXPECT_LT(solution->cost / solution->bound - 1.0, 1e-3);
}

TEST(TierKnapsack, SolvesDegenerateInstances) {
  EXPECT_EQ(solve_with_budgets({}, {})->cost, 0.0);
  // Nothing to decide, and just enough.
  const Items single{{{2.0, {1, 2, 3, 4}}}, {{1.0, {1, 0, 0, 0}}}};
  EXPECT_DOUBLE_EQ(solve_with_budgets(single, {2, 2, 3, 4})->cost, 3.0);
  EXPECT_FALSE(solve_with_budgets(single, {2, 2, 3, 3.5}));
  EXPECT_FALSE(solve_with_budgets(single, {2, 2, 0, 4}));
  // Equal items: only some may take the cheap choice.
  const Items equal(100, {{0.0, {3, 0, 0, 0}}, {1.0, {1, 0, 0, 0}}});
  const auto solution = solve_with_budgets(equal, {151, 0, 0, 0});
  ASSERT_TRUE(solution);
  EXPECT_DOUBLE_EQ(solution->cost, 75.0);
  EXPECT_NEAR(solution->bound, 74.5, 1e-6);
}

}  // namespace
}  // namespace skipper

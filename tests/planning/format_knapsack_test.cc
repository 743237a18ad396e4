#include "planning/format_knapsack.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <random>

namespace skipper {
namespace {

using Items = std::vector<KnapsackItem>;

Items random_items(std::mt19937& random, int num_items, int num_choices, int64_t max_size) {
  std::uniform_int_distribution<int64_t> size(0, max_size);
  std::lognormal_distribution<double> cost(0.0, 1.5);
  Items items(static_cast<size_t>(num_items));
  for (KnapsackItem& item : items) {
    for (int i = 0; i < num_choices; ++i) item.push_back({size(random), cost(random)});
  }
  return items;
}

// Like experts: sizes by format, errors that fall fourfold with each bit, use with a heavy tail.
Items expert_items(std::mt19937& random, int num_items) {
  std::lognormal_distribution<double> use(0.0, 1.0), sensitivity(0.0, 0.8);
  Items items(static_cast<size_t>(num_items));
  for (KnapsackItem& item : items) {
    const double scale = use(random) * sensitivity(random);
    for (const double bits : {2.75, 3.75, 4.25, 4.75, 8.25, 16.0}) {
      const double cost = bits == 16.0 ? 0.0 : scale * std::pow(4.0, -bits);
      item.push_back({static_cast<int64_t>(4718592 * bits / 8), cost});
    }
  }
  return items;
}

// The least cost of any selection within the budget; infinity where none fits.
double exhaustive(const Items& items, size_t first, int64_t budget) {
  if (budget < 0) return std::numeric_limits<double>::infinity();
  if (first == items.size()) return 0.0;
  double best = std::numeric_limits<double>::infinity();
  for (const KnapsackChoice& choice : items[first]) {
    best = std::min(best, choice.cost + exhaustive(items, first + 1, budget - choice.size));
  }
  return best;
}

void expect_consistent(const Items& items, const KnapsackSelection& selection, int64_t budget) {
  int64_t size = 0;
  double cost = 0.0;
  ASSERT_EQ(selection.choices.size(), items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    size += items[i].at(static_cast<size_t>(selection.choices[i])).size;
    cost += items[i].at(static_cast<size_t>(selection.choices[i])).cost;
  }
  EXPECT_EQ(size, selection.size);
  EXPECT_DOUBLE_EQ(cost, selection.cost);
  EXPECT_LE(size, budget);
}

int64_t smallest_size(const Items& items) { return UpgradePath(items).smallest().size; }

TEST(FormatKnapsack, ProvesWhatExhaustiveSearchFinds) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const int num_items = 1 + round % 7, num_choices = 1 + round % 5;
    const Items items = random_items(random, num_items, num_choices, round % 2 == 0 ? 20 : 100000);
    const int64_t budget = std::uniform_int_distribution<int64_t>(0, (round % 2 == 0 ? 20 : 100000) * num_items)(random);
    const double best = exhaustive(items, 0, budget);
    const auto exact = solve_knapsack_exactly(items, budget);
    const auto greedy = solve_knapsack(items, budget);
    ASSERT_EQ(exact.has_value(), std::isfinite(best));
    ASSERT_EQ(greedy.has_value(), std::isfinite(best));
    if (!exact) continue;
    expect_consistent(items, exact->selection, budget);
    expect_consistent(items, greedy->selection, budget);
    EXPECT_TRUE(exact->is_proven);
    EXPECT_NEAR(exact->selection.cost, best, 1e-9 * best);
    EXPECT_GE(greedy->selection.cost, best * (1 - 1e-12));
    EXPECT_LE(greedy->bound, best * (1 + 1e-12));
  }
}

TEST(FormatKnapsack, BoundsAndCostsFallAsTheBudgetGrows) {
  std::mt19937 random(2);
  const Items items = expert_items(random, 97);
  const UpgradePath path(items);
  double cost = std::numeric_limits<double>::infinity(), bound = cost;
  for (int64_t budget = path.smallest().size; budget < path.smallest().size * 6; budget += 7654321) {
    const auto solution = solve_knapsack(items, budget);
    ASSERT_TRUE(solution);
    EXPECT_LE(path.prefix(path.num_steps_within(budget)).cost, cost);
    EXPECT_LE(solution->selection.cost, path.prefix(path.num_steps_within(budget)).cost);
    EXPECT_LE(path.bound(budget), bound);
    EXPECT_LE(solution->bound, solution->selection.cost);
    cost = path.prefix(path.num_steps_within(budget)).cost;
    bound = path.bound(budget);
  }
}

TEST(FormatKnapsack, PrefixesAreNestedAndOptimalAtTheirOwnSize) {
  std::mt19937 random(3);
  const Items items = random_items(random, 9, 5, 50);
  const UpgradePath path(items);
  ASSERT_GT(path.steps().size(), 9u);
  for (size_t n = 0; n <= path.steps().size(); ++n) {
    const KnapsackSelection selection = path.prefix(n);
    EXPECT_NEAR(selection.cost, exhaustive(items, 0, selection.size), 1e-9);
    EXPECT_EQ(path.num_steps_within(selection.size), n);
    if (n == 0) continue;
    // One item differs from the prefix before, and only by growing.
    const KnapsackSelection before = path.prefix(n - 1);
    int num_changes = 0;
    for (size_t i = 0; i < items.size(); ++i) num_changes += selection.choices[i] != before.choices[i];
    EXPECT_EQ(num_changes, 1);
    EXPECT_GT(selection.size, before.size);
    EXPECT_LT(selection.cost, before.cost);
  }
}

TEST(FormatKnapsack, SolvesDegenerateInstances) {
  EXPECT_EQ(solve_knapsack({}, 0)->selection.cost, 0.0);
  EXPECT_FALSE(solve_knapsack({}, -1));
  EXPECT_TRUE(solve_knapsack_exactly({}, 0)->is_proven);
  // One choice: no decision. Equal choices: the first. Nothing but dominated ones: they are never taken.
  const Items single{{{5, 1.0}}, {{3, 2.0}, {3, 2.0}}, {{1, 1.0}, {2, 1.0}, {9, 7.0}}};
  EXPECT_FALSE(solve_knapsack(single, 8));
  const auto solution = solve_knapsack_exactly(single, 9);
  EXPECT_EQ(solution->selection.choices, (std::vector<int32_t>{0, 0, 0}));
  EXPECT_TRUE(solution->is_proven);
  // Sizes of 0 and costs of 0.
  const Items zeros{{{0, 3.0}, {0, 1.0}}, {{0, 0.0}, {4, 0.0}}};
  EXPECT_EQ(solve_knapsack(zeros, 0)->selection.cost, 1.0);
}

TEST(FormatKnapsack, TakesChoicesOffTheHullWhereOnlyTheyFit) {
  const Items items{{{0, 10.0}, {5, 9.0}, {10, 0.0}}};
  EXPECT_EQ(solve_knapsack(items, 7)->selection.choices[0], 1);
  EXPECT_DOUBLE_EQ(solve_knapsack(items, 7)->bound, 3.0);
  EXPECT_EQ(solve_knapsack(items, 10)->selection.choices[0], 2);
}

TEST(FormatKnapsack, ProvesSmallModelsAndSaysWhenItGivesUp) {
  std::mt19937 random(4);
  const Items items = expert_items(random, 192);
  const int64_t budget = smallest_size(items) * 8 / 5;
  const auto exact = solve_knapsack_exactly(items, budget);
  EXPECT_TRUE(exact->is_proven);
  EXPECT_LE(exact->selection.cost, solve_knapsack(items, budget)->selection.cost);
  EXPECT_GE(exact->selection.cost, solve_knapsack(items, budget)->bound);
  const auto hasty = solve_knapsack_exactly(items, budget, 10);
  EXPECT_FALSE(hasty->is_proven);
  EXPECT_EQ(hasty->bound, solve_knapsack(items, budget)->bound);
}

TEST(FormatKnapsack, IsWithinATenthOfAPercentOfTheBoundFor6144Experts) {
  std::mt19937 random(5);
  const Items items = expert_items(random, 6144);
  for (const double bits : {3.0, 4.0, 6.0}) {
    const auto budget = static_cast<int64_t>(6144 * 4718592.0 * bits / 8);
    const auto solution = solve_knapsack(items, budget);
    expect_consistent(items, solution->selection, budget);
    EXPECT_LT(solution->selection.cost / solution->bound - 1.0, 1e-3) << bits;
  }
}

}  // namespace
}  // namespace skipper

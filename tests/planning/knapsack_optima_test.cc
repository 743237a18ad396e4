// Against optimal values of SciPy's MILP solver: tools/make_knapsack_fixtures.py.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/json_fields.h"
#include "planning/format_knapsack.h"
#include "planning/tier_knapsack.h"

namespace skipper {
namespace {

using nlohmann::json;

json fixtures() { return read_json_file(SKIPPER_SOURCE_DIR "/tests/planning/fixtures/knapsacks.json"); }

// MILP solvers take whole numbers to a tolerance.
constexpr double kTolerance = 1e-6;

TEST(KnapsackOptima, AreProvenForOneBudget) {
  const json instances = fixtures()["formats"];
  ASSERT_GE(instances.size(), 8u);
  for (const json& instance : instances) {
    std::vector<KnapsackItem> items;
    for (const json& item : instance["items"]) {
      items.emplace_back();
      for (const json& choice : item) items.back().push_back({choice[0].get<int64_t>(), choice[1].get<double>()});
    }
    const auto optimum = instance["optimum"].get<double>();
    const auto exact = solve_knapsack_exactly(items, instance["budget"].get<int64_t>());
    ASSERT_TRUE(exact && exact->is_proven) << items.size() << " items";
    EXPECT_NEAR(exact->selection.cost, optimum, kTolerance * optimum) << items.size() << " items";
    const auto greedy = solve_knapsack(items, instance["budget"].get<int64_t>());
    EXPECT_LE(greedy->bound, optimum * (1 + kTolerance));
    EXPECT_GE(greedy->selection.cost, optimum * (1 - kTolerance));
    // One step of one item is what rounding down can cost.
    EXPECT_LE(greedy->selection.cost, optimum * 1.25) << items.size() << " items";
  }
}

TEST(KnapsackOptima, AreBoundedAndApproachedForSeveralBudgets) {
  const json instances = fixtures()["tiers"];
  ASSERT_GE(instances.size(), 5u);
  for (const json& instance : instances) {
    std::vector<BudgetedItem> items;
    for (const json& item : instance["items"]) {
      items.emplace_back();
      for (const json& choice : item) {
        items.back().push_back({choice[0].get<double>(),
                                {choice[1].get<double>(), choice[2].get<double>(), choice[3].get<double>(),
                                 choice[4].get<double>()}});
      }
    }
    const auto optimum = instance["optimum"].get<double>();
    const auto solution = solve_with_budgets(items, instance["budgets"].get<BudgetValues>());
    ASSERT_TRUE(solution) << items.size() << " items";
    EXPECT_LE(solution->bound, optimum * (1 + kTolerance)) << items.size() << " items";
    EXPECT_GE(solution->cost, optimum * (1 - kTolerance)) << items.size() << " items";
    EXPECT_LE(solution->cost, optimum * 1.05) << items.size() << " items";
  }
}

}  // namespace
}  // namespace skipper

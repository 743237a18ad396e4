// Multiple-choice knapsack with several budgets: one choice for each expert so that all its uses fit, at the least cost.
//
// For the planner a choice is a format in a tier; uses are bytes of each tier and, where time is the cost, the loss. The
// relaxation in which choices may be mixed is solved by column generation (Dantzig and Wolfe 1960): a basis of one column more
// than there are budgets, whose prices let every item choose alone; what it chooses is the next column, and the sum of what all
// choose is a bound for every selection (the Lagrangian dual). The prices then lead a greedy search to a selection.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace skipper {

inline constexpr size_t kMaxBudgets = 4;
using BudgetValues = std::array<double, kMaxBudgets>;

struct BudgetedChoice {
  double cost = 0.0;     // finite, not negative
  BudgetValues uses{};   // not negative
};
using BudgetedItem = std::vector<BudgetedChoice>;  // at least one choice

struct BudgetedSolution {
  std::vector<int32_t> choices;  // [items]
  double cost = 0.0;
  BudgetValues uses{};
  double bound = 0.0;  // no selection within the budgets costs less
};

// Budgets that nothing uses may be anything. Nothing where no selection was found: surely so where the budgets are too small
// for the relaxation, and where rounding found no way to meet all of them.
std::optional<BudgetedSolution> solve_with_budgets(std::span<const BudgetedItem> items, const BudgetValues& budgets);

}  // namespace skipper

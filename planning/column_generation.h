// The relaxation of tier_knapsack.h: prices of the budgets at which every item may choose alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "planning/tier_knapsack.h"

namespace skipper {

struct BudgetPrices {
  BudgetValues prices{};     // cost for one unit of each budget
  double bound = 0.0;        // no selection within the budgets costs less
  bool is_feasible = false;  // mixed choices meet the budgets
};

BudgetPrices price_budgets(std::span<const BudgetedItem> items, const BudgetValues& budgets);

// The choice of each item that costs least at these prices, the first of equals.
std::vector<int32_t> cheapest_choices(std::span<const BudgetedItem> items, const BudgetValues& prices);

double priced_cost(const BudgetedChoice& choice, const BudgetValues& prices);

}  // namespace skipper

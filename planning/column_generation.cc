#include "planning/column_generation.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace skipper {
namespace {

constexpr int kMaxIterations = 400;
// Of the cost, between the relaxation and its bound: far below what rounding to whole choices costs.
constexpr double kTolerance = 1e-8;
// Row 0 says that the shares of all selections sum to 1, row k + 1 that budget k is kept.
constexpr size_t kRows = kMaxBudgets + 1;
using Rows = std::array<double, kRows>;

// A variable of the relaxation: the share of a selection, what is left of a budget, or what is missing of it.
struct Column {
  double cost = 0.0;
  Rows rows{};
};

// The inverse of the basis' columns, by Gauss and Jordan with row exchange; false where they depend on each other.
bool invert(const std::array<Column, kRows>& basis, std::array<Rows, kRows>& inverse) {
  std::array<Rows, kRows> left{};
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t c = 0; c < kRows; ++c) left[r][c] = basis[c].rows[r];
    inverse[r] = {};
    inverse[r][r] = 1.0;
  }
  for (size_t c = 0; c < kRows; ++c) {
    size_t pivot = c;
    for (size_t r = c + 1; r < kRows; ++r) pivot = std::abs(left[r][c]) > std::abs(left[pivot][c]) ? r : pivot;
    if (std::abs(left[pivot][c]) < 1e-13) return false;
    std::swap(left[c], left[pivot]);
    std::swap(inverse[c], inverse[pivot]);
    const double scale = 1.0 / left[c][c];
    for (size_t i = 0; i < kRows; ++i) left[c][i] *= scale, inverse[c][i] *= scale;
    for (size_t r = 0; r < kRows; ++r) {
      const double factor = left[r][c];
      if (r == c || factor == 0.0) continue;
      for (size_t i = 0; i < kRows; ++i) left[r][i] -= factor * left[c][i], inverse[r][i] -= factor * inverse[c][i];
    }
  }
  return true;
}

// Revised simplex; budgets are scaled to 1.
class Master {
 public:
  Master(std::span<const BudgetedItem> items, const BudgetValues& budgets) : items_(items) {
    double spread = 0.0;
    for (const BudgetedItem& item : items) {
      const auto [least, most] = std::ranges::minmax(item, {}, &BudgetedChoice::cost);
      spread += most.cost;
    }
    missing_cost_ = 1e4 * std::max(spread, 1e-30);
    for (size_t k = 0; k < kMaxBudgets; ++k) scale_[k] = budgets[k] > 0.0 ? 1.0 / budgets[k] : 1.0;
    for (size_t k = 0; k < kMaxBudgets; ++k) target_[k + 1] = budgets[k] > 0.0 ? 1.0 : 0.0;
    target_[0] = 1.0;
    start();
  }

  BudgetPrices solve() {
    for (int i = 0; i < kMaxIterations; ++i) {
      if (!invert(basis_, inverse_)) break;
      const Rows duals = duals_of_basis();
      const Column selection = best_selection(duals);
      const Column* entering = &selection;
      double gain = duals[0] - reduced(selection, duals);
      for (const Column& other : slacks_) {
        const double other_gain = -reduced(other, duals);
        if (other_gain > gain) gain = other_gain, entering = &other;
      }
      if (objective() - best_.bound <= kTolerance * std::abs(best_.bound)) break;
      if (gain <= 0.0 || !exchange(*entering)) break;
    }
    if (invert(basis_, inverse_)) best_.is_feasible = missing() <= 1e-9;
    return best_;
  }

 private:
  void start() {
    const Column first = column_of(cheapest_choices(items_, {}));
    basis_[0] = first;
    for (size_t k = 0; k < kMaxBudgets; ++k) {
      Column left, missing{.cost = missing_cost_};
      left.rows[k + 1] = 1.0;
      missing.rows[k + 1] = -1.0;
      slacks_[2 * k] = left;
      slacks_[2 * k + 1] = missing;
      basis_[k + 1] = first.rows[k + 1] <= target_[k + 1] ? left : missing;
    }
  }

  Column column_of(const std::vector<int32_t>& choices) const {
    Column column;
    column.rows[0] = 1.0;
    for (size_t i = 0; i < items_.size(); ++i) {
      const BudgetedChoice& choice = items_[i][static_cast<size_t>(choices[i])];
      column.cost += choice.cost;
      for (size_t k = 0; k < kMaxBudgets; ++k) column.rows[k + 1] += choice.uses[k] * scale_[k];
    }
    return column;
  }

  Rows duals_of_basis() const {
    Rows duals{};
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t c = 0; c < kRows; ++c) duals[c] += basis_[r].cost * inverse_[r][c];
    }
    return duals;
  }

  // Without row 0.
  static double reduced(const Column& column, const Rows& duals) {
    double cost = column.cost;
    for (size_t k = 1; k < kRows; ++k) cost -= duals[k] * column.rows[k];
    return cost;
  }

  // What all items choose at the prices of the basis, and the bound that follows.
  Column best_selection(const Rows& duals) {
    BudgetValues prices{};
    for (size_t k = 0; k < kMaxBudgets; ++k) prices[k] = std::max(0.0, -duals[k + 1]) * scale_[k];
    const Column column = column_of(cheapest_choices(items_, prices));
    double bound = column.cost;
    for (size_t k = 0; k < kMaxBudgets; ++k) bound += prices[k] / scale_[k] * (column.rows[k + 1] - target_[k + 1]);
    if (!has_bound_ || bound > best_.bound) {
      best_.bound = bound;
      best_.prices = prices;
      has_bound_ = true;
    }
    return column;
  }

  Rows solution() const {
    Rows values{};
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t c = 0; c < kRows; ++c) values[r] += inverse_[r][c] * target_[c];
    }
    return values;
  }

  double objective() const {
    const Rows values = solution();
    double cost = 0.0;
    for (size_t r = 0; r < kRows; ++r) cost += basis_[r].cost * values[r];
    return cost;
  }

  double missing() const {
    const Rows values = solution();
    double sum = 0.0;
    for (size_t r = 0; r < kRows; ++r) sum += basis_[r].rows[0] == 0.0 && basis_[r].cost > 0.0 ? values[r] : 0.0;
    return sum;
  }

  // The leaving column is the first to reach zero; false where none does.
  bool exchange(const Column& entering) {
    const Rows values = solution();
    double least = std::numeric_limits<double>::infinity();
    size_t leaving = kRows;
    for (size_t r = 0; r < kRows; ++r) {
      double rate = 0.0;
      for (size_t c = 0; c < kRows; ++c) rate += inverse_[r][c] * entering.rows[c];
      if (rate > 1e-12 && values[r] / rate < least) least = values[r] / rate, leaving = r;
    }
    if (leaving == kRows) return false;
    basis_[leaving] = entering;
    return true;
  }

  std::span<const BudgetedItem> items_;
  BudgetValues scale_{};
  Rows target_{};
  double missing_cost_ = 0.0;
  std::array<Column, kRows> basis_;
  std::array<Column, 2 * kMaxBudgets> slacks_;
  std::array<Rows, kRows> inverse_;
  BudgetPrices best_;
  bool has_bound_ = false;
};

}  // namespace

double priced_cost(const BudgetedChoice& choice, const BudgetValues& prices) {
  double cost = choice.cost;
  for (size_t k = 0; k < kMaxBudgets; ++k) cost += prices[k] * choice.uses[k];
  return cost;
}

std::vector<int32_t> cheapest_choices(std::span<const BudgetedItem> items, const BudgetValues& prices) {
  std::vector<int32_t> choices;
  choices.reserve(items.size());
  for (const BudgetedItem& item : items) {
    double least = std::numeric_limits<double>::infinity();
    size_t cheapest = 0;
    for (size_t c = 0; c < item.size(); ++c) {
      const double cost = priced_cost(item[c], prices);
      if (cost < least) least = cost, cheapest = c;
    }
    choices.push_back(static_cast<int32_t>(cheapest));
  }
  return choices;
}

BudgetPrices price_budgets(std::span<const BudgetedItem> items, const BudgetValues& budgets) {
  return Master(items, budgets).solve();
}

}  // namespace skipper

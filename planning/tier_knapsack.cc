#include "planning/tier_knapsack.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "planning/column_generation.h"

namespace skipper {
namespace {

constexpr int kMaxRounds = 50;
// Pairs of changes that are looked at: all of a few hundred experts several times, which takes part of a second.
constexpr size_t kMaxPairs = 200'000'000;
// Of a budget: sums of doubles in different orders.
constexpr double kSlack = 1e-12;

// A change of one item's choice, and what makes it come before others.
struct Change {
  size_t item = 0;
  int32_t choice = 0;
  double rank = 0.0;
};

BudgetValues uses_of(std::span<const BudgetedItem> items, const std::vector<int32_t>& choices) {
  BudgetValues uses{};
  for (size_t i = 0; i < items.size(); ++i) {
    for (size_t k = 0; k < kMaxBudgets; ++k) uses[k] += items[i][static_cast<size_t>(choices[i])].uses[k];
  }
  return uses;
}

// From what every item would choose alone to a selection that meets all budgets.
class Rounding {
 public:
  Rounding(std::span<const BudgetedItem> items, const BudgetValues& budgets, const BudgetValues& prices)
      : items_(items), budgets_(budgets), prices_(prices), choices_(cheapest_choices(items, prices)) {
    sum_uses();
  }

  std::optional<BudgetedSolution> run() {
    for (int round = 0; round < kMaxRounds && is_over(); ++round) {
      if (!apply(relieving_changes(), &Rounding::relieves)) return std::nullopt;
    }
    if (is_over()) return std::nullopt;
    const size_t pairs_per_round = num_choices() * num_choices();
    for (size_t num_pairs = 0; num_pairs < kMaxPairs; num_pairs += pairs_per_round) {
      for (int round = 0; round < kMaxRounds && apply(saving_changes(), &Rounding::saves_within_budgets); ++round) {
      }
      if (pairs_per_round > kMaxPairs || !exchange_pairs()) break;
    }
    sum_uses();
    BudgetedSolution solution{.choices = choices_, .uses = uses_};
    for (size_t i = 0; i < items_.size(); ++i) solution.cost += current(i).cost;
    return solution;
  }

 private:
  const BudgetedChoice& current(size_t item) const { return items_[item][static_cast<size_t>(choices_[item])]; }

  void sum_uses() { uses_ = uses_of(items_, choices_); }

  bool is_over(size_t k) const { return uses_[k] > budgets_[k] * (1.0 + kSlack); }
  bool is_over() const {
    for (size_t k = 0; k < kMaxBudgets; ++k) {
      if (is_over(k)) return true;
    }
    return false;
  }

  double excess(size_t k, double more) const {
    const double over = uses_[k] + more - budgets_[k] * (1.0 + kSlack);
    return std::max(0.0, over) / std::max(budgets_[k], 1e-300);
  }

  // How much of the excess over all budgets, in units of them, a change takes away. It may exceed another budget by less.
  double relief(size_t item, const BudgetedChoice& after) const {
    double relief = 0.0;
    for (size_t k = 0; k < kMaxBudgets; ++k) relief += excess(k, 0.0) - excess(k, after.uses[k] - current(item).uses[k]);
    return relief;
  }

  bool relieves(const Change& change) const {
    return is_over() && relief(change.item, items_[change.item][static_cast<size_t>(change.choice)]) > 0.0;
  }

  bool saves_within_budgets(const Change& change) const {
    const BudgetedChoice& after = items_[change.item][static_cast<size_t>(change.choice)];
    return after.cost < current(change.item).cost && relief(change.item, after) >= 0.0;
  }

  size_t num_choices() const {
    size_t count = 0;
    for (const BudgetedItem& item : items_) count += item.size();
    return count;
  }

  // Of few items, each is a large part of the budgets, and what two do together counts. False when nothing was gained.
  bool exchange_pairs() {
    bool has_gained = false;
    for (size_t first = 0; first < items_.size(); ++first) {
      for (int32_t choice = 0; choice < static_cast<int32_t>(items_[first].size()); ++choice) {
        const int32_t before = choices_[first];
        if (choice == before) continue;
        const double cost = current(first).cost;
        set(first, choice);
        if (set_best_partner(first, cost - current(first).cost)) {
          has_gained = true;
        } else {
          set(first, before);
        }
      }
    }
    return has_gained;
  }

  // After `first` has changed and saved so much (less than nothing, usually): the other item's change with which most is saved.
  bool set_best_partner(size_t first, double saved) {
    Change best{.item = 0, .choice = 0, .rank = 1e-9 * std::abs(saved)};
    for (size_t i = 0; i < items_.size(); ++i) {
      if (i == first) continue;
      for (int32_t choice = 0; choice < static_cast<int32_t>(items_[i].size()); ++choice) {
        const BudgetedChoice& after = items_[i][static_cast<size_t>(choice)];
        const double gain = saved + current(i).cost - after.cost;
        if (gain > best.rank && fits(i, after)) best = {i, choice, gain};
      }
    }
    if (best.rank <= 1e-9 * std::abs(saved)) return false;
    set(best.item, best.choice);
    return true;
  }

  bool fits(size_t item, const BudgetedChoice& after) const {
    for (size_t k = 0; k < kMaxBudgets; ++k) {
      if (excess(k, after.uses[k] - current(item).uses[k]) > 0.0) return false;
    }
    return true;
  }

  void set(size_t item, int32_t choice) {
    const BudgetedChoice& before = current(item);
    choices_[item] = choice;
    for (size_t k = 0; k < kMaxBudgets; ++k) uses_[k] += current(item).uses[k] - before.uses[k];
  }

  // Those that cost least at the prices for what they relieve come first.
  std::vector<Change> relieving_changes() const {
    return changes([&](size_t i, const BudgetedChoice& after) {
      const double gain = relief(i, after);
      if (gain <= 0.0) return std::numeric_limits<double>::infinity();
      return std::max(0.0, priced_cost(after, prices_) - priced_cost(current(i), prices_)) / gain;
    });
  }

  // Those that save most cost for the priced uses that they take.
  std::vector<Change> saving_changes() const {
    return changes([&](size_t i, const BudgetedChoice& after) {
      const double saved = current(i).cost - after.cost;
      if (saved <= 0.0 || relief(i, after) < 0.0) return std::numeric_limits<double>::infinity();
      const double taken = priced_cost(after, prices_) - priced_cost(current(i), prices_) + saved;
      return taken <= 0.0 ? -saved : taken / saved;
    });
  }

  template <typename Rank>
  std::vector<Change> changes(const Rank& rank) const {
    std::vector<Change> changes;
    for (size_t i = 0; i < items_.size(); ++i) {
      for (int32_t choice = 0; choice < static_cast<int32_t>(items_[i].size()); ++choice) {
        const double value = rank(i, items_[i][static_cast<size_t>(choice)]);
        if (value < std::numeric_limits<double>::infinity()) changes.push_back({i, choice, value});
      }
    }
    std::ranges::stable_sort(changes, {}, &Change::rank);
    return changes;
  }

  // Makes each change that is still `wanted` when its turn comes; false when there was none.
  bool apply(const std::vector<Change>& changes, bool (Rounding::*wanted)(const Change&) const) {
    bool has_changed = false;
    for (const Change& change : changes) {
      if (!(this->*wanted)(change)) continue;
      set(change.item, change.choice);
      has_changed = true;
    }
    return has_changed;
  }

  std::span<const BudgetedItem> items_;
  BudgetValues budgets_;
  BudgetValues prices_;
  std::vector<int32_t> choices_;
  BudgetValues uses_{};
};

}  // namespace

std::optional<BudgetedSolution> solve_with_budgets(std::span<const BudgetedItem> items, const BudgetValues& budgets) {
  for (const BudgetedItem& item : items) CHECK(!item.empty()) << "an item has no choice";
  const BudgetPrices relaxed = price_budgets(items, budgets);
  if (!relaxed.is_feasible) return std::nullopt;
  auto solution = Rounding(items, budgets, relaxed.prices).run();
  if (solution) solution->bound = std::clamp(relaxed.bound, 0.0, solution->cost);
  return solution;
}

}  // namespace skipper

#include "planning/format_knapsack.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

namespace skipper {
namespace {

double density(const UpgradeStep& step) { return step.saved_cost / static_cast<double>(step.extra_size); }

// Choices from small to large, each cheaper than all before it.
std::vector<int32_t> undominated(const KnapsackItem& item) {
  std::vector<int32_t> order(item.size());
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](int32_t i) {
    const KnapsackChoice& choice = item[static_cast<size_t>(i)];
    return std::tuple(choice.size, choice.cost, i);
  };
  std::ranges::sort(order, {}, key);
  std::vector<int32_t> kept;
  for (const int32_t i : order) {
    const double cost = item[static_cast<size_t>(i)].cost;
    if (kept.empty() || cost < item[static_cast<size_t>(kept.back())].cost) kept.push_back(i);
  }
  return kept;
}

UpgradeStep step_between(const KnapsackItem& item, int32_t from, int32_t to) {
  const KnapsackChoice &before = item[static_cast<size_t>(from)], &after = item[static_cast<size_t>(to)];
  return {.item = 0, .choice = to, .extra_size = after.size - before.size, .saved_cost = before.cost - after.cost};
}

struct Hull {
  int32_t first = 0;
  std::vector<UpgradeStep> steps;  // their densities do not rise
};

// Compares densities as the sort of all steps will: rounding must not put an item's second step before its first.
Hull hull_of(const KnapsackItem& item) {
  const std::vector<int32_t> choices = undominated(item);
  Hull hull{.first = choices.front(), .steps = {}};
  std::vector<int32_t> corners{choices.front()};
  for (size_t i = 1; i < choices.size(); ++i) {
    UpgradeStep step = step_between(item, corners.back(), choices[i]);
    while (!hull.steps.empty() && density(step) > density(hull.steps.back())) {
      hull.steps.pop_back();
      corners.pop_back();
      step = step_between(item, corners.back(), choices[i]);
    }
    hull.steps.push_back(step);
    corners.push_back(choices[i]);
  }
  return hull;
}

void choose(std::span<const KnapsackItem> items, const UpgradeStep& step, KnapsackSelection& selection) {
  int32_t& choice = selection.choices[static_cast<size_t>(step.item)];
  const KnapsackItem& item = items[static_cast<size_t>(step.item)];
  const KnapsackChoice &before = item[static_cast<size_t>(choice)], &after = item[static_cast<size_t>(step.choice)];
  selection.size += after.size - before.size;
  choice = step.choice;
}

// Summed anew, so that a cost does not depend on the order of the steps that led to it.
double cost_of(std::span<const KnapsackItem> items, const std::vector<int32_t>& choices) {
  double cost = 0.0;
  for (size_t i = 0; i < items.size(); ++i) cost += items[i][static_cast<size_t>(choices[i])].cost;
  return cost;
}

// The best that one item can still do with what is left of the budget; `saved_cost` is 0 where there is nothing.
UpgradeStep best_upgrade(std::span<const KnapsackItem> items, const KnapsackSelection& selection, int64_t left) {
  UpgradeStep best;
  for (size_t i = 0; i < items.size(); ++i) {
    const int32_t current = selection.choices[i];
    for (int32_t choice = 0; choice < static_cast<int32_t>(items[i].size()); ++choice) {
      const UpgradeStep step = step_between(items[i], current, choice);
      if (step.extra_size > left || step.saved_cost <= best.saved_cost) continue;
      best = step;
      best.item = static_cast<int32_t>(i);
    }
  }
  return best;
}

// Spends what a prefix has left over: later steps in their order, then single upgrades, off the hull too.
void fill(std::span<const KnapsackItem> items, const UpgradePath& path, size_t num_taken, int64_t budget,
          KnapsackSelection& selection) {
  std::vector<bool> is_behind(items.size());
  for (size_t i = num_taken; i < path.steps().size(); ++i) {
    const UpgradeStep& step = path.steps()[i];
    if (is_behind[static_cast<size_t>(step.item)]) continue;
    if (selection.size + step.extra_size <= budget) {
      choose(items, step, selection);
    } else {
      is_behind[static_cast<size_t>(step.item)] = true;
    }
  }
  for (size_t round = 0; round < items.size(); ++round) {
    const UpgradeStep step = best_upgrade(items, selection, budget - selection.size);
    if (step.saved_cost <= 0.0) break;
    choose(items, step, selection);
  }
  selection.cost = cost_of(items, selection.choices);
}

}  // namespace

UpgradePath::UpgradePath(std::span<const KnapsackItem> items) : items_(items) {
  for (size_t i = 0; i < items.size(); ++i) {
    CHECK(!items[i].empty()) << "item " << i << " has no choice";
    Hull hull = hull_of(items[i]);
    smallest_.choices.push_back(hull.first);
    smallest_.size += items[i][static_cast<size_t>(hull.first)].size;
    for (UpgradeStep& step : hull.steps) {
      step.item = static_cast<int32_t>(i);
      steps_.push_back(step);
    }
  }
  smallest_.cost = cost_of(items, smallest_.choices);
  // Stable: steps of one item stay in order where their densities are equal.
  std::ranges::stable_sort(steps_, std::ranges::greater(), density);
  sizes_.push_back(smallest_.size);
  costs_.push_back(smallest_.cost);
  for (const UpgradeStep& step : steps_) {
    sizes_.push_back(sizes_.back() + step.extra_size);
    costs_.push_back(costs_.back() - step.saved_cost);
  }
}

KnapsackSelection UpgradePath::prefix(size_t num_steps) const {
  CHECK_LE(num_steps, steps_.size());
  KnapsackSelection selection = smallest_;
  for (size_t i = 0; i < num_steps; ++i) choose(items_, steps_[i], selection);
  selection.cost = cost_of(items_, selection.choices);
  return selection;
}

size_t UpgradePath::num_steps_within(int64_t budget) const {
  CHECK_GE(budget, smallest_.size);
  const auto over = std::ranges::upper_bound(sizes_, budget);
  return static_cast<size_t>(over - sizes_.begin()) - 1;
}

double UpgradePath::bound(int64_t budget) const {
  const size_t num_steps = num_steps_within(budget);
  if (num_steps == steps_.size()) return costs_.back();
  return costs_[num_steps] - density(steps_[num_steps]) * static_cast<double>(budget - sizes_[num_steps]);
}

std::optional<KnapsackSolution> solve_knapsack(std::span<const KnapsackItem> items, int64_t budget) {
  const UpgradePath path(items);
  if (path.smallest().size > budget) return std::nullopt;
  const size_t num_steps = path.num_steps_within(budget);
  KnapsackSolution solution{.selection = path.prefix(num_steps)};
  if (num_steps == path.steps().size()) {
    // Every item has its cheapest choice.
    solution.is_proven = true;
    solution.bound = solution.selection.cost;
    return solution;
  }
  fill(items, path, num_steps, budget, solution.selection);
  solution.bound = std::min(path.bound(budget), solution.selection.cost);
  return solution;
}

}  // namespace skipper

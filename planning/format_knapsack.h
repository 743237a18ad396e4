// Multiple-choice knapsack: one choice for each item, so that the sizes fit a budget at the least cost.
//
// For the planner an item is an expert, a choice a format, its size the bytes and its cost the loss. Of each item only choices on
// the lower convex hull of (size, cost) matter to the relaxation in which choices may be mixed; its optimum follows from one sort
// of all hull steps (Dantzig 1957; Sinha and Zoltners 1979), bounds every selection from below, and mixes at most one item.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace skipper {

struct KnapsackChoice {
  int64_t size = 0;   // not negative
  double cost = 0.0;  // finite
};
using KnapsackItem = std::vector<KnapsackChoice>;  // at least one choice

// What is chosen: choices[i] is an index into items[i].
struct KnapsackSelection {
  std::vector<int32_t> choices;
  int64_t size = 0;
  double cost = 0.0;
};

// One item from one point of its hull to the next.
struct UpgradeStep {
  int32_t item = 0;
  int32_t choice = 0;  // afterwards
  int64_t extra_size = 0;
  double saved_cost = 0.0;
};

// The order in which a growing budget is spent. The selection of a budget is a prefix of the steps, so selections are nested:
// a larger budget keeps every step of a smaller one. Items outlive the path.
class UpgradePath {
 public:
  explicit UpgradePath(std::span<const KnapsackItem> items);

  const std::vector<UpgradeStep>& steps() const { return steps_; }
  // The smallest choice of every item: what no budget can do without.
  const KnapsackSelection& smallest() const { return smallest_; }
  // After the first `num_steps` steps.
  KnapsackSelection prefix(size_t num_steps) const;
  // How many steps a budget of at least smallest().size pays for, in order and without a gap.
  size_t num_steps_within(int64_t budget) const;
  // The optimum of the relaxation: no selection within the budget costs less.
  double bound(int64_t budget) const;

 private:
  std::span<const KnapsackItem> items_;
  KnapsackSelection smallest_;
  std::vector<UpgradeStep> steps_;
  std::vector<int64_t> sizes_;  // [steps + 1] after so many steps
  std::vector<double> costs_;   // [steps + 1]
};

struct KnapsackSolution {
  KnapsackSelection selection;
  double bound = 0.0;  // no selection within the budget costs less; the selection's own cost where it is proven the best
  bool is_proven = false;
};

// The prefix that the budget pays for, and what else fits into the rest of the budget. Nothing when not even the smallest choices
// fit. 6144 items of 6 choices take milliseconds.
std::optional<KnapsackSolution> solve_knapsack(std::span<const KnapsackItem> items, int64_t budget);

// Branch and bound over the items, with dominance between partial selections of like size, started from solve_knapsack(). Gives
// up proving, not solving, where more than `max_states` partial selections would have to be kept.
std::optional<KnapsackSolution> solve_knapsack_exactly(std::span<const KnapsackItem> items, int64_t budget,
                                                       size_t max_states = size_t{4} << 20);

}  // namespace skipper

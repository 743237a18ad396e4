// The proof of format_knapsack.h: partial selections, item by item, as long as they may still become the best.
#include <glog/logging.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>

#include "planning/format_knapsack.h"

namespace skipper {
namespace {

constexpr int32_t kNoParent = -1;
// Costs are sums in different orders.
constexpr double kRounding = 1e-12;

// A selection for the items so far.
struct State {
  int64_t size = 0;
  double cost = 0.0;
  int32_t parent = kNoParent;  // in the trail
  int32_t choice = 0;
};

// Where a state came from, for reading the selection back.
struct Trail {
  int32_t parent = kNoParent;
  int32_t choice = 0;
};

class BranchAndBound {
 public:
  BranchAndBound(std::span<const KnapsackItem> items, int64_t budget, size_t max_states)
      : items_(items), budget_(budget), max_states_(max_states) {
    // Items with much to decide first: their states are few while they are many to choose among.
    order_.resize(items.size());
    std::iota(order_.begin(), order_.end(), 0);
    const auto spread = [&](size_t i) {
      const auto [least, most] = std::ranges::minmax(items_[i], {}, &KnapsackChoice::cost);
      return most.cost - least.cost;
    };
    std::ranges::stable_sort(order_, std::ranges::greater(), spread);
    for (const size_t i : order_) sorted_.push_back(items_[i]);
    for (size_t i = 0; i <= sorted_.size(); ++i) rest_.emplace_back(std::span(sorted_).subspan(i));
  }

  // A selection that costs less than `best`, if there is one; false when there were too many states to tell.
  bool improve(KnapsackSelection& best) {
    limit_ = best.cost;
    std::vector<State> states{State{}};
    for (size_t i = 0; i < sorted_.size(); ++i) {
      states = extend(states, i);
      if (trail_.size() + states.size() > max_states_) return false;
      for (State& state : states) {
        trail_.push_back({state.parent, state.choice});
        state.parent = static_cast<int32_t>(trail_.size()) - 1;
      }
    }
    const auto found = std::ranges::min_element(states, {}, &State::cost);
    if (found != states.end() && found->cost < best.cost) best = selection_of(*found);
    return true;
  }

 private:
  // Every choice of item `i` after every state, without those that cannot become the best or that another beats.
  std::vector<State> extend(const std::vector<State>& states, size_t i) const {
    std::vector<State> extended;
    for (const State& state : states) {
      for (int32_t choice = 0; choice < static_cast<int32_t>(sorted_[i].size()); ++choice) {
        const KnapsackChoice& taken = sorted_[i][static_cast<size_t>(choice)];
        const State next{state.size + taken.size, state.cost + taken.cost, state.parent, choice};
        if (may_be_best(next, i + 1)) extended.push_back(next);
      }
    }
    std::ranges::sort(extended, {}, [](const State& state) { return std::tuple(state.size, state.cost); });
    double least = std::numeric_limits<double>::infinity();
    std::erase_if(extended, [&](const State& state) {
      if (state.cost >= least) return true;
      least = state.cost;
      return false;
    });
    return extended;
  }

  bool may_be_best(const State& state, size_t next_item) const {
    const UpgradePath& rest = rest_[next_item];
    const int64_t left = budget_ - state.size;
    if (left < rest.smallest().size) return false;
    const double bound = state.cost + rest.bound(left);
    return bound < limit_ - kRounding * std::abs(limit_);
  }

  KnapsackSelection selection_of(const State& state) const {
    KnapsackSelection selection{.choices = std::vector<int32_t>(items_.size()), .size = state.size, .cost = 0.0};
    int32_t position = state.parent;
    for (size_t i = sorted_.size(); i-- > 0; position = trail_[static_cast<size_t>(position)].parent) {
      selection.choices[order_[i]] = trail_[static_cast<size_t>(position)].choice;
    }
    for (size_t i = 0; i < items_.size(); ++i) {
      selection.cost += items_[i][static_cast<size_t>(selection.choices[i])].cost;
    }
    return selection;
  }

  std::span<const KnapsackItem> items_;
  int64_t budget_;
  size_t max_states_;
  std::vector<size_t> order_;
  std::vector<KnapsackItem> sorted_;
  std::vector<UpgradePath> rest_;  // [items + 1] of the items from there on
  std::vector<Trail> trail_;
  double limit_ = 0.0;
};

}  // namespace

std::optional<KnapsackSolution> solve_knapsack_exactly(std::span<const KnapsackItem> items, int64_t budget, size_t max_states) {
  CHECK_LT(max_states, static_cast<size_t>(std::numeric_limits<int32_t>::max()));
  auto solution = solve_knapsack(items, budget);
  if (!solution || solution->is_proven) return solution;
  if (!BranchAndBound(items, budget, max_states).improve(solution->selection)) return solution;
  solution->bound = solution->selection.cost;
  solution->is_proven = true;
  return solution;
}

}  // namespace skipper

#include "evaluation/frontier_search.h"

namespace skipper {
namespace {

bool is_at_least(GridIndex high, GridIndex low) { return high.text >= low.text && high.vision >= low.vision; }

bool is_better(const PointValue& a, const PointValue& b) {
  return a.loss < b.loss || (a.loss == b.loss && a.gain > b.gain);
}

}  // namespace

PointValue EvaluatedGrid::at(GridIndex index) {
  const auto known = values_.find(index);
  if (known != values_.end()) return known->second;
  return values_.emplace(index, evaluate_(index)).first->second;
}

std::optional<GridIndex> EvaluatedGrid::best_with(double least_gain) const {
  std::optional<GridIndex> best;
  for (const auto& [index, value] : values_) {
    if (value.gain < least_gain) continue;
    if (!best || is_better(value, values_.at(*best))) best = index;
  }
  return best;
}

bool EvaluatedGrid::violates_monotonicity() const {
  for (const auto& [low, low_value] : values_) {
    for (const auto& [high, high_value] : values_) {
      if (is_at_least(high, low) && (high_value.loss < low_value.loss || high_value.gain < low_value.gain)) return true;
    }
  }
  return false;
}

std::optional<GridIndex> search_frontier(EvaluatedGrid& grid, double least_gain) {
  GridIndex index{0, grid.size().vision - 1};
  while (index.text < grid.size().text && index.vision >= 0) {
    if (grid.at(index).gain >= least_gain) {
      --index.vision;
    } else {
      ++index.text;
    }
  }
  return grid.best_with(least_gain);
}

}  // namespace skipper

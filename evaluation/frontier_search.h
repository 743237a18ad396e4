// The least loss at a wanted gain over two ascending lists of thresholds, walking the staircase between too little gain and
// enough (MoDES, algorithm 1, corners only).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>

namespace skipper {

// Thresholds by class, as positions in their ascending lists. Ordered, to be a key.
struct GridIndex {
  int text = 0;
  int vision = 0;

  auto operator<=>(const GridIndex&) const = default;
};

// How many thresholds each list has; both at least 1.
struct GridSize {
  int text = 1;
  int vision = 1;
};

// What one pass over the data finds at a point: f and g of the search. Neither is NaN.
struct PointValue {
  double loss = 0.0;
  double gain = 0.0;
};

using GridEvaluator = std::function<PointValue(GridIndex)>;

// Evaluates each point once; one cache serves every target of a ladder.
class EvaluatedGrid {
 public:
  EvaluatedGrid(GridSize size, GridEvaluator evaluate) : size_(size), evaluate_(std::move(evaluate)) {}

  PointValue at(GridIndex index);
  GridSize size() const { return size_; }
  const std::map<GridIndex, PointValue>& evaluated() const { return values_; }

  // Of all points evaluated so far: the least loss with at least this gain; among equals the most gain, then the lowest
  // thresholds.
  std::optional<GridIndex> best_with(double least_gain) const;
  // Whether a point with both thresholds at least as high has less loss or less gain than another: then neither is monotone, and
  // what the walk found may not be the optimum.
  bool violates_monotonicity() const;

 private:
  GridSize size_;
  GridEvaluator evaluate_;
  std::map<GridIndex, PointValue> values_;
};

// The point of least loss among those with gain ≥ `least_gain`; nothing when there is none. At most text + vision evaluations,
// those that the cache holds included:
//
//            vision →   start at the highest vision threshold of the first row: enough gain goes left, too little goes down.
//   text   . . . + *    * enough gain, evaluated    + too little, evaluated    . never evaluated
//    ↓     . + * * .    The lowest * of each row is the only one that can be best in it: left of it the gain is too little,
//          + * . . .    right of it the loss is no less. A row where the walk does not go left has the corner of the row above
//          * . . . .    it as its better.
//
// Loss and gain must not decrease with a threshold. Where they do, the result is still a point that was evaluated and has the
// gain, and EvaluatedGrid::violates_monotonicity tells.
std::optional<GridIndex> search_frontier(EvaluatedGrid& grid, double least_gain);

}  // namespace skipper

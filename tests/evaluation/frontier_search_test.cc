// The staircase walk against exhaustive search on random surfaces.
#include "evaluation/frontier_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace skipper {
namespace {

constexpr int kLargestSide = 30;

// Values of every point of a grid, row by row.
struct Surface {
  GridSize size;
  std::vector<PointValue> values;

  size_t offset(GridIndex index) const { return static_cast<size_t>(index.text * size.vision + index.vision); }
  PointValue& at(GridIndex index) { return values[offset(index)]; }
  const PointValue& at(GridIndex index) const { return values[offset(index)]; }

  template <typename F>
  void for_each(const F& visit) const {
    for (int text = 0; text < size.text; ++text) {
      for (int vision = 0; vision < size.vision; ++vision) visit(GridIndex{text, vision});
    }
  }
};

Surface random_surface(GridSize size, std::mt19937& random, int distinct_values) {
  Surface surface{size, std::vector<PointValue>(static_cast<size_t>(size.text * size.vision))};
  std::uniform_int_distribution<int> value(0, distinct_values - 1);
  for (PointValue& point : surface.values) point = {value(random) / 8.0, value(random) / 8.0};
  return surface;
}

// Running maxima along both axes make any surface monotone; few distinct values give ties and plateaus.
Surface random_monotone_surface(GridSize size, std::mt19937& random, int distinct_values) {
  Surface surface = random_surface(size, random, distinct_values);
  surface.for_each([&](GridIndex i) {
    PointValue& point = surface.at(i);
    for (const GridIndex before : {GridIndex{i.text - 1, i.vision}, GridIndex{i.text, i.vision - 1}}) {
      if (before.text < 0 || before.vision < 0) continue;
      point.loss = std::max(point.loss, surface.at(before).loss);
      point.gain = std::max(point.gain, surface.at(before).gain);
    }
  });
  return surface;
}

// Half of the increments are zero: long plateaus, and sums, so that both thresholds matter everywhere.
Surface random_additive_surface(GridSize size, std::mt19937& random) {
  std::bernoulli_distribution steps(0.5);
  std::uniform_int_distribution<int> height(0, 5);
  const auto ascending = [&](int count) {
    std::vector<int> values(1, 0);
    for (int i = 1; i < count; ++i) values.push_back(values.back() + (steps(random) ? height(random) : 0));
    return values;
  };
  Surface surface{size, std::vector<PointValue>(static_cast<size_t>(size.text * size.vision))};
  const auto text_loss = ascending(size.text), vision_loss = ascending(size.vision);
  const auto text_gain = ascending(size.text), vision_gain = ascending(size.vision);
  surface.for_each([&](GridIndex i) {
    const auto t = static_cast<size_t>(i.text), v = static_cast<size_t>(i.vision);
    surface.at(i) = {static_cast<double>(text_loss[t] + vision_loss[v]), static_cast<double>(text_gain[t] + vision_gain[v])};
  });
  return surface;
}

std::optional<double> exhaustive_least_loss(const Surface& surface, double least_gain) {
  std::optional<double> least;
  surface.for_each([&](GridIndex i) {
    const PointValue& point = surface.at(i);
    if (point.gain >= least_gain && (!least || point.loss < *least)) least = point.loss;
  });
  return least;
}

// 0, every value that occurs, a little over each (the last of which no point reaches).
std::vector<double> targets_of(const Surface& surface) {
  std::vector<double> targets = {0.0};
  for (const PointValue& point : surface.values) {
    targets.push_back(point.gain);
    targets.push_back(point.gain + 0.01);
  }
  std::sort(targets.begin(), targets.end());
  targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
  return targets;
}

struct CountedGrid {
  explicit CountedGrid(const Surface& surface)
      : grid(surface.size, [this, &surface](GridIndex index) {
          ++num_evaluations;
          return surface.at(index);
        }) {}
  CountedGrid(const CountedGrid&) = delete;

  int num_evaluations = 0;
  EvaluatedGrid grid;
};

void expect_optimum(const Surface& surface, double target) {
  CountedGrid counted(surface);
  const std::optional<GridIndex> found = search_frontier(counted.grid, target);
  const std::optional<double> expected = exhaustive_least_loss(surface, target);
  ASSERT_EQ(found.has_value(), expected.has_value()) << "target " << target;
  ASSERT_LE(counted.num_evaluations, surface.size.text + surface.size.vision);
  ASSERT_FALSE(counted.grid.violates_monotonicity());
  if (!found) return;
  ASSERT_EQ(surface.at(*found).loss, *expected) << "target " << target;
  ASSERT_GE(surface.at(*found).gain, target);
}

TEST(FrontierSearch, FindsTheExhaustiveOptimumOnMonotoneGridsOfAllSizes) {
  std::mt19937 random(16);
  for (int text = 1; text <= kLargestSide; ++text) {
    for (int vision = 1; vision <= kLargestSide; ++vision) {
      const GridSize size{text, vision};
      for (const Surface& surface :
           {random_monotone_surface(size, random, 3 + text * vision / 4), random_additive_surface(size, random)}) {
        std::vector<double> targets = targets_of(surface);
        const double highest = targets.back();
        std::shuffle(targets.begin(), targets.end(), random);
        targets.resize(std::min<size_t>(targets.size(), 6));
        targets.insert(targets.end(), {0.0, highest - 0.01, highest});  // all feasible, only the maximum is, none is
        for (const double target : targets) ASSERT_NO_FATAL_FAILURE(expect_optimum(surface, target)) << text << "x" << vision;
      }
    }
  }
}

TEST(FrontierSearch, OneCacheServesAllTargetsWithTheSameResults) {
  std::mt19937 random(5);
  for (int round = 0; round < 50; ++round) {
    const Surface surface = random_additive_surface({17, 23}, random);
    CountedGrid shared(surface);
    double last_loss = 0.0;
    const std::vector<double> targets = targets_of(surface);
    for (const double target : targets) {
      const auto found = search_frontier(shared.grid, target);
      const auto expected = exhaustive_least_loss(surface, target);
      ASSERT_EQ(found.has_value(), expected.has_value());
      if (!found) continue;
      EXPECT_EQ(surface.at(*found).loss, *expected);
      EXPECT_GE(surface.at(*found).loss, last_loss) << "more gain cannot cost less";
      last_loss = surface.at(*found).loss;
    }
    EXPECT_EQ(static_cast<size_t>(shared.num_evaluations), shared.grid.evaluated().size()) << "a point was evaluated twice";
    EXPECT_LE(shared.num_evaluations, 17 * 23);
  }
}

TEST(FrontierSearch, NonMonotoneSurfacesGiveAFeasibleEvaluatedPointAndAreFlagged) {
  std::mt19937 random(17);
  int num_flagged = 0;
  for (int round = 0; round < 500; ++round) {
    const GridSize size{1 + round % kLargestSide, 1 + round * 7 % kLargestSide};
    const Surface surface = random_surface(size, random, 50);
    CountedGrid counted(surface);
    const double target = targets_of(surface)[static_cast<size_t>(round) % targets_of(surface).size()];
    const auto found = search_frontier(counted.grid, target);
    ASSERT_LE(counted.num_evaluations, size.text + size.vision);
    if (found) {
      ASSERT_TRUE(counted.grid.evaluated().contains(*found));
      ASSERT_GE(surface.at(*found).gain, target);
    }
    num_flagged += counted.grid.violates_monotonicity() ? 1 : 0;
  }
  EXPECT_GT(num_flagged, 400) << "only grids of a few points can look monotone by chance";
}

TEST(FrontierSearch, FlagsALossOrAGainThatFallsWithAThreshold) {
  for (const Surface& surface : {Surface{{1, 2}, {{0.2, 0.0}, {0.1, 1.0}}}, Surface{{2, 1}, {{0.1, 1.0}, {0.2, 0.5}}}}) {
    CountedGrid counted(surface);
    surface.for_each([&](GridIndex i) { counted.grid.at(i); });
    EXPECT_TRUE(counted.grid.violates_monotonicity());
  }
}

TEST(FrontierSearch, PrefersMoreGainAmongPointsOfEqualLoss) {
  const Surface surface{{1, 3}, {{0.5, 0.2}, {0.5, 0.4}, {0.5, 0.6}}};
  CountedGrid counted(surface);
  EXPECT_EQ(search_frontier(counted.grid, 0.1), (GridIndex{0, 2}));
}

}  // namespace
}  // namespace skipper

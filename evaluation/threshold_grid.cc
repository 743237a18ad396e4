#include "evaluation/threshold_grid.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace skipper {
namespace {

constexpr double kLowestShare = 0.01;
// A histogram knows scores no better than its buckets, and rounding differs; this much over the highest is over all.
constexpr double kOverHighest = 1.01;

}  // namespace

ScoreDistribution::ScoreDistribution(std::vector<ScoreCount> scores) : scores_(std::move(scores)) {
  std::erase_if(scores_, [](const ScoreCount& one) { return one.score <= 0.0 || one.count <= 0.0; });
  std::sort(scores_.begin(), scores_.end(), [](const ScoreCount& a, const ScoreCount& b) { return a.score < b.score; });
  for (const ScoreCount& one : scores_) total_ += one.count;
}

double ScoreDistribution::quantile(double share) const {
  CHECK(!is_empty());
  double below = 0.0;
  for (const ScoreCount& one : scores_) {
    below += one.count;
    if (below >= share * total_) return one.score;
  }
  return scores_.back().score;
}

std::vector<float> threshold_grid(const ScoreDistribution& scores, int count) {
  std::vector<float> grid = {0.0f};
  if (scores.is_empty()) return grid;
  const double highest = kOverHighest * scores.quantile(1.0);
  const double lowest = std::min(scores.quantile(kLowestShare), highest);
  for (int i = 1; i <= count; ++i) {
    const double share = count == 1 ? 1.0 : static_cast<double>(i - 1) / static_cast<double>(count - 1);
    const auto threshold = static_cast<float>(std::exp(std::log(lowest) + share * std::log(highest / lowest)));
    grid.push_back(std::max(threshold, std::nextafter(grid.back(), std::numeric_limits<float>::max())));
  }
  return grid;
}

}  // namespace skipper

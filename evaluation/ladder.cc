#include "evaluation/ladder.h"

#include <algorithm>

namespace skipper {

const std::vector<double>& ladder_targets() {
  static const std::vector<double> targets = {0.0,  0.1,  0.2,  0.3, 0.4,  0.45, 0.5,  0.55, 0.6,
                                              0.63, 0.66, 0.7, 0.75, 0.79, 0.83, 0.88};
  return targets;
}

std::vector<MeasuredPoint> clean_ladder(std::vector<MeasuredPoint> points, LadderOrder order) {
  const auto amount = [order](const MeasuredPoint& one) {
    return order == LadderOrder::kSkipRatio ? one.held_out.skip_ratio() : one.held_out.saved_bytes_ratio();
  };
  if (points.empty()) return points;
  const MeasuredPoint unskipped = points.front();
  points.erase(points.begin());
  const auto by_amount_then_loss = [&](const MeasuredPoint& a, const MeasuredPoint& b) {
    return amount(a) < amount(b) || (amount(a) == amount(b) && a.held_out.kl > b.held_out.kl);
  };
  std::stable_sort(points.begin(), points.end(), by_amount_then_loss);
  // From the most down: a point stays when it loses less than all that have at least as much.
  std::vector<MeasuredPoint> kept;
  for (auto point = points.rbegin(); point != points.rend(); ++point) {
    const bool has_more_than_none = amount(*point) > amount(unskipped);
    const bool is_beaten = !kept.empty() && point->held_out.mean_kl() >= kept.back().held_out.mean_kl();
    if (has_more_than_none && !is_beaten) kept.push_back(std::move(*point));
  }
  kept.push_back(unskipped);
  std::reverse(kept.begin(), kept.end());
  return kept;
}

}  // namespace skipper

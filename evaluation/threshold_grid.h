// The thresholds worth trying for one class, from the scores that calibration saw.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace skipper {

// `count` pairs have about this score.
struct ScoreCount {
  double score = 0.0;
  double count = 0.0;
};

// Scores of pairs, any number of them equal, in any order; counts not negative.
class ScoreDistribution {
 public:
  ScoreDistribution() = default;  // of nothing
  explicit ScoreDistribution(std::vector<ScoreCount> scores);

  // No pair has a score above 0: a class without samples, or one whose scores are all 0.
  bool is_empty() const { return scores_.empty(); }
  // The least positive score that at least this share of the pairs with positive scores do not exceed. Not when empty.
  double quantile(double share) const;
  const std::vector<ScoreCount>& scores() const { return scores_; }  // ascending, positive

 private:
  std::vector<ScoreCount> scores_;  // ascending, positive
  double total_ = 0.0;
};

// 0 and then `count` thresholds, equal steps of the logarithm apart, from the lowest hundredth of the positive scores to just
// over the highest score: the first skips nothing, the last every pair. Just {0} when the distribution is empty.
std::vector<float> threshold_grid(const ScoreDistribution& scores, int count);

}  // namespace skipper

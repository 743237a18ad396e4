// A rate that was measured several times, with its spread.
#pragma once

#include <functional>
#include <vector>

namespace skipper {

struct MeasuredRate {
  double median = 0.0;
  double lowest = 0.0;
  double highest = 0.0;
  int num_samples = 0;

  friend bool operator==(const MeasuredRate&, const MeasuredRate&) = default;
};

// At least one sample.
MeasuredRate rate_of(std::vector<double> samples);

// Seconds of `num_samples` rounds, after one that does not count, for caches and pages. `seconds_of_round` returns what a round
// took.
std::vector<double> sample_seconds(int num_samples, const std::function<double()>& seconds_of_round);

// amount / seconds of each sample.
std::vector<double> rates_from(double amount, std::vector<double> seconds);

}  // namespace skipper

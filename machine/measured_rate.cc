#include "machine/measured_rate.h"

#include <glog/logging.h>

#include <algorithm>

namespace skipper {

MeasuredRate rate_of(std::vector<double> samples) {
  CHECK(!samples.empty());
  std::ranges::sort(samples);
  const size_t middle = samples.size() / 2;
  const double median = samples.size() % 2 == 1 ? samples[middle] : 0.5 * (samples[middle - 1] + samples[middle]);
  return {median, samples.front(), samples.back(), static_cast<int>(samples.size())};
}

std::vector<double> sample_seconds(int num_samples, const std::function<double()>& seconds_of_round) {
  seconds_of_round();
  std::vector<double> seconds;
  for (int i = 0; i < num_samples; ++i) seconds.push_back(seconds_of_round());
  return seconds;
}

std::vector<double> rates_from(double amount, std::vector<double> seconds) {
  for (double& value : seconds) value = amount / value;
  return seconds;
}

}  // namespace skipper

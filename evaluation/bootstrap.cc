#include "evaluation/bootstrap.h"

#include <algorithm>
#include <random>
#include <vector>

namespace skipper {
namespace {

constexpr double kTail = 0.025;

double quantile(const std::vector<double>& ascending, double share) {
  return ascending[static_cast<size_t>(share * static_cast<double>(ascending.size() - 1) + 0.5)];
}

}  // namespace

double mean_of(std::span<const SampleSum> samples) {
  SampleSum total;
  for (const SampleSum& sample : samples) {
    total.sum += sample.sum;
    total.count += sample.count;
  }
  return total.count > 0.0 ? total.sum / total.count : 0.0;
}

Interval bootstrap_interval(std::span<const SampleSum> samples, int num_draws, uint64_t seed) {
  if (samples.empty() || num_draws < 1) return {};
  std::mt19937_64 generator(seed);
  std::vector<SampleSum> drawn(samples.size());
  std::vector<double> means;
  for (int draw = 0; draw < num_draws; ++draw) {
    // The remainder favours small indices by less than one in 2^40, and is the same with every standard library.
    for (SampleSum& sample : drawn) sample = samples[generator() % samples.size()];
    means.push_back(mean_of(drawn));
  }
  std::ranges::sort(means);
  return {quantile(means, kTail), quantile(means, 1.0 - kTail)};
}

}  // namespace skipper

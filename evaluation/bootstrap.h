// Confidence intervals of a ratio of sums, by drawing samples again.
#pragma once

#include <cstdint>
#include <span>

namespace skipper {

// What one sample adds to a mean: `sum` over `count` things. Samples are drawn whole, as their tokens depend on each other.
struct SampleSum {
  double sum = 0.0;
  double count = 0.0;
};

struct Interval {
  double low = 0.0;
  double high = 0.0;
};

// Σ sum / Σ count; 0 without counts.
double mean_of(std::span<const SampleSum> samples);

// 2.5 % and 97.5 % quantiles of mean_of() over `num_draws` data sets of the same size, drawn with replacement (percentile
// bootstrap, Efron 1979). The same seed draws the same. Both 0 without samples.
Interval bootstrap_interval(std::span<const SampleSum> samples, int num_draws = 2000, uint64_t seed = 1);

}  // namespace skipper

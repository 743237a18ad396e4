#include "evaluation/distance_report.h"

#include <vector>

namespace skipper {

DistanceReport distance_report(const ScoredSamples& samples, const std::vector<SampleMeasurement>& measurements) {
  DistanceReport report;
  std::array<std::vector<SampleSum>, kNumSampleKinds> sums;
  std::array<int64_t, kNumSampleKinds> flips{};
  for (const SampleMeasurement& measured : measurements) {
    const auto kind = static_cast<size_t>(samples.samples[measured.sample].kind);
    sums[kind].push_back({measured.kl, static_cast<double>(measured.num_scored)});
    flips[kind] += measured.num_flips;
    ++report[kind].samples;
    report[kind].tokens += measured.num_scored;
  }
  for (size_t kind = 0; kind < kNumSampleKinds; ++kind) {
    report[kind].mean_kl = mean_of(sums[kind]);
    report[kind].kl_interval = bootstrap_interval(sums[kind]);
    if (report[kind].tokens == 0) continue;
    report[kind].flip_ratio = static_cast<double>(flips[kind]) / static_cast<double>(report[kind].tokens);
  }
  return report;
}

}  // namespace skipper

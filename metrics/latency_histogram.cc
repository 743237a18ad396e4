#include "metrics/latency_histogram.h"

#include <algorithm>
#include <cmath>

namespace skipper {
namespace {

constexpr double kSmallestBoundSeconds = 0.0005;

using Bounds = std::array<double, LatencyHistogram::kNumBounds>;

const Bounds& bounds() {
  static const Bounds table = [] {
    Bounds result;
    for (size_t i = 0; i < result.size(); ++i) {
      result[i] = kSmallestBoundSeconds * std::exp2(static_cast<double>(i) / 2.0);
    }
    return result;
  }();
  return table;
}

}  // namespace

double LatencyHistogram::upper_bound(int i) { return bounds()[static_cast<size_t>(i)]; }

void LatencyHistogram::observe(double seconds) {
  const double duration = std::max(seconds, 0.0);
  const auto bucket = std::lower_bound(bounds().begin(), bounds().end(), duration) - bounds().begin();
  ++buckets_[static_cast<size_t>(bucket)];
  ++count_;
  sum_seconds_ += duration;
}

void LatencyHistogram::merge(const LatencyHistogram& other) {
  for (size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  sum_seconds_ += other.sum_seconds_;
}

double LatencyHistogram::percentile_ms(double percent) const {
  const double rank = std::clamp(percent, 0.0, 100.0) / 100.0 * static_cast<double>(count_);
  double below = 0.0;
  for (int i = 0; i < kNumBounds; ++i) {
    const double inside = static_cast<double>(bucket_count(i));
    if (inside > 0.0 && below + inside >= rank) {
      const double lower = i == 0 ? 0.0 : upper_bound(i - 1);
      return 1000.0 * (lower + (upper_bound(i) - lower) * (rank - below) / inside);
    }
    below += inside;
  }
  return count_ == 0 ? 0.0 : 1000.0 * upper_bound(kNumBounds - 1);
}

}  // namespace skipper

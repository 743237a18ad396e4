// Durations counted in logarithmic buckets: percentiles without keeping the samples, mergeable across ranks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace skipper {

// Not thread-safe; its owner guards it.
class LatencyHistogram {
 public:
  // Upper bounds grow by √2 from 0.5 ms to about 1,482 s; one more bucket takes what is longer.
  static constexpr int kNumBounds = 44;

  // The upper bound of bucket i in seconds, i in [0, kNumBounds).
  static double upper_bound(int i);

  // Negative durations count as 0.
  void observe(double seconds);
  void merge(const LatencyHistogram& other);

  int64_t count() const { return count_; }
  double sum_seconds() const { return sum_seconds_; }
  // Samples in bucket i, i in [0, kNumBounds]; the last one is unbounded.
  int64_t bucket_count(int i) const { return buckets_[static_cast<size_t>(i)]; }

  // The duration in milliseconds below which `percent` (0 to 100) of the samples lie, interpolated within its bucket: at most
  // √2 off. 0 without samples; in the unbounded bucket its lower bound.
  double percentile_ms(double percent) const;

 private:
  std::array<int64_t, kNumBounds + 1> buckets_{};
  int64_t count_ = 0;
  double sum_seconds_ = 0.0;
};

}  // namespace skipper

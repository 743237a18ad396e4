// Sums over about the last N observations, in constant memory.
#pragma once

#include <cstdint>

namespace skipper {

// Numerator and denominator of a mean or a ratio over `count` observations.
struct RatioSums {
  double numerator = 0.0;
  double denominator = 0.0;
  int64_t count = 0;

  RatioSums& operator+=(const RatioSums& other) {
    numerator += other.numerator;
    denominator += other.denominator;
    count += other.count;
    return *this;
  }
};

// Two halves in turn: when the newer one is full the older one is forgotten, so that the sum covers between half a window and a
// whole one, and what is long past never counts.
class SlidingSums {
 public:
  void add(const RatioSums& sums, int64_t window) {
    newer_ += sums;
    if (newer_.count < (window + 1) / 2) return;
    older_ = newer_;
    newer_ = {};
  }
  RatioSums total() const {
    RatioSums sum = older_;
    return sum += newer_;
  }
  void clear() { older_ = newer_ = {}; }

 private:
  RatioSums older_;
  RatioSums newer_;
};

}  // namespace skipper

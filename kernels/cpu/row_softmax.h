// Exponentials of a row against its maximum: the part of softmax that router and attention share.
#pragma once

#include <limits>

#include "kernels/cpu/simd.h"

namespace skipper::cpu {

// Rows are padded to whole vectors with -infinity, which becomes exactly 0.
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

constexpr int64_t padded_to_lanes(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// x[i] ← e^(x[i] − max x) over `padded` elements, a positive multiple of 16. Returns the sum, lanes by i % 16.
template <int kWidth>
[[gnu::always_inline]] inline float exponentiate_row(float* x, int64_t padded) {
  using V = Lanes<kWidth>;
  V largest = V::load(x);
  for (int64_t i = kLanes; i < padded; i += kLanes) largest = largest.max(V::load(x + i));
  const V shift = V::broadcast(max_of_lanes(largest));
  V sum = V::zero();
  for (int64_t i = 0; i < padded; i += kLanes) {
    const V e = exp(V::load(x + i) - shift);
    e.store(x + i);
    sum = sum + e;
  }
  return sum_of_lanes(sum);
}

}  // namespace skipper::cpu

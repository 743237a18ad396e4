// Reductions over one row in sixteen lanes: element i is added to lane i % 16, lanes are added by the fixed tree.
#pragma once

#include "kernels/cpu/simd.h"

namespace skipper::cpu {

// Σ map(x[i]); `map` takes and returns sixteen lanes, and must map 0 to 0 because the last vector is padded with it.
template <int kWidth, typename Map>
[[gnu::always_inline]] inline float sum_over_row(const float* x, int64_t count, const Map& map) {
  using V = Lanes<kWidth>;
  V sum = V::zero();
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sum = sum + map(V::load(x + i));
  if (i < count) sum = sum + map(V::load_first(x + i, count - i));
  return sum_of_lanes(sum);
}

// visit(load, store) for every vector of a row of `count` elements, where load(pointer) and store(pointer, lanes) move the
// lanes that belong to the row and no byte beyond them.
template <int kWidth, typename Visit>
[[gnu::always_inline]] inline void for_each_vector(int64_t count, const Visit& visit) {
  using V = Lanes<kWidth>;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    visit([i](const auto* row) __attribute__((always_inline)) { return V::load(row + i); },
          [i](auto* row, const V& value) __attribute__((always_inline)) { value.store(row + i); });
  }
  const int64_t rest = count - i;
  if (rest == 0) return;
  visit([i, rest](const auto* row) __attribute__((always_inline)) { return V::load_first(row + i, rest); },
        [i, rest](auto* row, const V& value) __attribute__((always_inline)) { value.store_first(row + i, rest); });
}

}  // namespace skipper::cpu

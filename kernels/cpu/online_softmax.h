// Softmax of rows whose scores arrive in tiles (Milakov and Gimelshein 2018): the largest score so far, the sum of the weights
// against it, and the factor by which a larger one shrinks what was summed before.
//
// Scores are in units of log2 e, so that a weight is a power of two. A tile whose scores of a row are all -infinity leaves
// the row's state as it was, to the bit.
#pragma once

#include <limits>

#include "kernels/cpu/lane_words.h"

namespace skipper::cpu {

inline constexpr int64_t kTilePositions = 64;
inline constexpr int64_t kTileVectors = kTilePositions / kLanes;
inline constexpr float kNothingSeen = -std::numeric_limits<float>::infinity();

// 2^x for x <= 0 within 2 units in the last place; exactly 0 below -125 and exactly 1 at 0. NaN stays NaN.
template <int kWidth>
[[gnu::always_inline]] inline Lanes<kWidth> power_of_two(const Lanes<kWidth>& x) {
  using Part = typename Lanes<kWidth>::Part;
  using WordPart = typename Lanes<kWidth>::WordPart;
  constexpr float kRound = 12582912.0f;  // 1.5 · 2^23: adding it leaves the rounded integer in the low mantissa bits
  constexpr float kSmallest = -125.0f;
  // Σ (ln 2)^i / i!, for the remainder in [-1/2, 1/2].
  constexpr float kTerms[] = {1.0f,           0.693147181f,   0.240226507f,   0.0555041087f,
                              0.00961812911f, 0.00133335581f, 1.54035304e-4f, 1.52527338e-5f};
  Lanes<kWidth> result;
  for (int i = 0; i < Lanes<kWidth>::kParts; ++i) {
    const Part shifted = x.part[i] + kRound;
    const Part r = x.part[i] - (shifted - kRound);
    Part power = kTerms[7] - Part{};
    for (int term = 6; term >= 0; --term) power = fused_multiply_add<kWidth>(power, r, kTerms[term] - Part{});
    const auto scaled =
        reinterpret_cast<Part>(reinterpret_cast<WordPart>(power) + (reinterpret_cast<WordPart>(shifted) << 23));
    const Part floored = x.part[i] < kSmallest ? Part{} : scaled;
    result.part[i] = x.part[i] != x.part[i] ? x.part[i] : floored;
  }
  return result;
}

template <int kWidth>
[[gnu::always_inline]] inline float largest_lane(const Lanes<kWidth>& x) {
  const auto larger = [](const auto& a, const auto& b) __attribute__((always_inline)) { return a > b ? a : b; };
  FourFloats four;
  if constexpr (kWidth == 16) {
    const auto v = x.part[0];
    const auto eight = larger(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                              __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
    four = larger(__builtin_shufflevector(eight, eight, 0, 1, 2, 3), __builtin_shufflevector(eight, eight, 4, 5, 6, 7));
  } else if constexpr (kWidth == 8) {
    const auto eight = larger(x.part[0], x.part[1]);
    four = larger(__builtin_shufflevector(eight, eight, 0, 1, 2, 3), __builtin_shufflevector(eight, eight, 4, 5, 6, 7));
  } else {
    four = larger(larger(x.part[0], x.part[1]), larger(x.part[2], x.part[3]));
  }
  const FourFloats two = larger(four, __builtin_shufflevector(four, four, 2, 3, 0, 1));
  return two[0] > two[1] ? two[0] : two[1];
}

// The state of some rows; `largest`, `next_largest` and `shrink` are padded to whole vectors of rows.
struct OnlineSoftmax {
  float* largest;       // [rows] of the tiles before
  float* next_largest;  // [rows] with this tile
  float* shrink;        // [rows] 2^(largest − next_largest)
  float* totals;        // [rows, 16] sums of weights by position % 16
};

// Raises next_largest of `row` to its scores [64], of which those from `count` on become -infinity.
template <int kWidth>
[[gnu::always_inline]] inline void find_largest(const OnlineSoftmax& softmax, int64_t row, float* scores, int64_t count) {
  using V = Lanes<kWidth>;
  for (int64_t i = count; i < kTilePositions; ++i) scores[i] = kNothingSeen;
  V largest = V::load(scores);
  for (int64_t i = 1; i < kTileVectors; ++i) largest = largest.max(V::load(scores + i * kLanes));
  const float here = largest_lane(largest), before = softmax.largest[row];
  softmax.next_largest[row] = here > before ? here : before;
}

// shrink and largest of all rows, whose next_largest is known.
template <int kWidth>
[[gnu::always_inline]] inline void shrink_sums(const OnlineSoftmax& softmax, int64_t num_rows) {
  using V = Lanes<kWidth>;
  for (int64_t row = 0; row < num_rows; row += kLanes) {
    const V next = V::load(softmax.next_largest + row);
    power_of_two(V::load(softmax.largest + row) - next).store(softmax.shrink + row);
    next.store(softmax.largest + row);
  }
}

// weights [64] = 2^(scores − largest), rounded to T; the total is of what they were before.
template <Isa kIsa, typename T>
[[gnu::always_inline]] inline void weigh(const OnlineSoftmax& softmax, int64_t row, const float* scores, T* weights) {
  using V = Lanes<register_width(kIsa)>;
  const V largest = V::broadcast(softmax.largest[row]);
  V total = V::load(softmax.totals + row * kLanes) * V::broadcast(softmax.shrink[row]);
  for (int64_t i = 0; i < kTileVectors; ++i) {
    const V power = power_of_two(V::load(scores + i * kLanes) - largest);
    store_rounded<kIsa>(power, weights + i * kLanes);
    total = total + power;
  }
  total.store(softmax.totals + row * kLanes);
}

}  // namespace skipper::cpu

// Rotation of one token's heads: what rope and rms_norm_rope share.
#pragma once

#include <algorithm>

#include "kernels/cpu/row_sums.h"
#include "kernels/cpu/sine_cosine.h"

namespace skipper::cpu {

// The heads of one token lie side by side, each 2 · half wide.
struct TokenHeads {
  float* x;
  int64_t num_heads;
  int64_t half;
};

// Rotates pairs [first, first + count) of every head by angles whose sines and cosines are given.
template <int kWidth>
[[gnu::always_inline]] inline void rotate_pairs(const TokenHeads& heads, int64_t first, int64_t count, const SineCosine& turn) {
  using V = Lanes<kWidth>;
  for (int64_t head = 0; head < heads.num_heads; ++head) {
    float* low = heads.x + head * 2 * heads.half + first;
    float* high = low + heads.half;
    for_each_vector<kWidth>(count, [&](const auto& load, const auto& store) __attribute__((always_inline)) {
      const V a = load(low), b = load(high), cosine = load(turn.cosine), sine = load(turn.sine);
      store(low, a * cosine - b * sine);
      store(high, b * cosine + a * sine);
    });
  }
}

// All heads of a token turn by the same angles [half], radians.
template <int kWidth>
[[gnu::always_inline]] inline void rotate_heads(const TokenHeads& heads, const float* angles) {
  constexpr int64_t kBlock = 8 * kLanes;
  float sine[kBlock], cosine[kBlock];
  const SineCosine turn{sine, cosine};
  for (int64_t first = 0; first < heads.half; first += kBlock) {
    const int64_t count = std::min(kBlock, heads.half - first);
    SineCosineKernel::run<kWidth>(angles + first, count, turn);
    rotate_pairs<kWidth>(heads, first, count, turn);
  }
}

}  // namespace skipper::cpu

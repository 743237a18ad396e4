// Sines and cosines of a row of angles, correctly rounded to float in all but rare cases up to a million radians.
#pragma once

#include <cstdint>

namespace skipper::cpu {

struct SineCosine {
  float* sine;
  float* cosine;
};

// In double precision, so that the angles of late positions (10^5 radians) lose nothing in the reduction to [-π/4, π/4];
// without branches, so that the compiler turns the loop into vectors. NaN and infinity become NaN.
struct SineCosineKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const float* const& angles, int64_t count, const SineCosine& result) {
    for (int64_t i = 0; i < count; ++i) {
      const double angle = static_cast<double>(angles[i]);
      constexpr double kRound = 6755399441055744.0;  // 1.5 · 2^52: adding it leaves the rounded integer in the low bits
      const double shifted = angle * 0.63661977236758134308 + kRound;
      const double n = shifted - kRound;
      const double r = (angle - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11;  // π/2 in two parts
      int64_t quadrant;
      __builtin_memcpy(&quadrant, &shifted, sizeof(quadrant));
      const double sine = sine_near_zero(r), cosine = cosine_near_zero(r);
      const bool is_odd = (quadrant & 1) != 0;
      const double first = is_odd ? cosine : sine, second = is_odd ? sine : cosine;
      result.sine[i] = static_cast<float>((quadrant & 2) != 0 ? -first : first);
      result.cosine[i] = static_cast<float>(((quadrant + 1) & 2) != 0 ? -second : second);
    }
  }

  // Taylor polynomials; the first term left out is below 1e-13 on [-π/4, π/4].
  [[gnu::always_inline]] static double sine_near_zero(double r) {
    const double s = r * r;
    double p = s * (1.0 / 6227020800) - 1.0 / 39916800;
    p = p * s + 1.0 / 362880;
    p = p * s - 1.0 / 5040;
    p = p * s + 1.0 / 120;
    p = p * s - 1.0 / 6;
    return r + r * s * p;
  }
  [[gnu::always_inline]] static double cosine_near_zero(double r) {
    const double s = r * r;
    double p = s * (-1.0 / 87178291200) + 1.0 / 479001600;
    p = p * s - 1.0 / 3628800;
    p = p * s + 1.0 / 40320;
    p = p * s - 1.0 / 720;
    p = p * s + 1.0 / 24;
    return 1.0 - 0.5 * s + s * s * p;
  }
};

}  // namespace skipper::cpu

// Root-mean-square normalisation of one row: what rms_norm, add_rms_norm and rms_norm_rope share.
#pragma once

#include <cmath>

#include "kernels/cpu/row_sums.h"

namespace skipper::cpu {

// The weight of a row of `size` elements.
template <typename T>
struct RowNorm {
  const T* weight;
  int64_t size;
  float epsilon;
};

// y[i] = x[i] / sqrt(squares / size + epsilon) · weight[i], where squares = Σ x²; y may be x.
template <int kWidth, typename T>
[[gnu::always_inline]] inline void scale_row(const RowNorm<T>& norm, float squares, const float* x, float* y) {
  const auto scale = Lanes<kWidth>::broadcast(1.0f / std::sqrt(squares / static_cast<float>(norm.size) + norm.epsilon));
  for_each_vector<kWidth>(norm.size, [&](const auto& load, const auto& store) __attribute__((always_inline)) {
    store(y, load(x) * scale * load(norm.weight));
  });
}

template <int kWidth, typename T>
[[gnu::always_inline]] inline void normalize_row(const RowNorm<T>& norm, const float* x, float* y) {
  using V = Lanes<kWidth>;
  const float squares = sum_over_row<kWidth>(x, norm.size, [](const V& v) __attribute__((always_inline)) { return v * v; });
  scale_row<kWidth>(norm, squares, x, y);
}

}  // namespace skipper::cpu

#include "machine/random_matrix.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace skipper {

Tensor random_matrix(const Shape& shape, DType dtype, uint32_t seed) {
  std::mt19937 generator(seed);
  Tensor matrix = Tensor::empty(shape, dtype);
  const float scale = 2.0f / std::sqrt(static_cast<float>(std::max<int64_t>(1, matrix.dim(1))));
  for (int64_t i = 0; i < matrix.num_elements(); ++i) {
    const float value = scale * (static_cast<float>(generator()) / 4294967296.0f - 0.5f);
    if (dtype == DType::kBF16) {
      matrix.data<bf16>()[i] = bf16(value);
    } else {
      matrix.data<float>()[i] = value;
    }
  }
  return matrix;
}

}  // namespace skipper

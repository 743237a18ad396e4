#include "model/rotary_embedding.h"

#include <cmath>

namespace skipper {
namespace {

// Frequency 3j + a belongs to axis a as long as that axis has frequencies left; what remains is temporal.
int axis_of(int64_t frequency, const RotaryConfig& config) {
  if (!config.mrope_sections) return 0;
  const auto axis = static_cast<int>(frequency % 3);
  return frequency / 3 < (*config.mrope_sections)[static_cast<size_t>(axis)] ? axis : 0;
}

}  // namespace

RotaryEmbedding::RotaryEmbedding(const RotaryConfig& config) {
  for (int64_t i = 0; i < config.dim / 2; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(config.dim);
    frequencies_.push_back({static_cast<float>(1.0 / std::pow(config.theta, exponent)), axis_of(i, config)});
  }
}

void RotaryEmbedding::angles(const Tensor& positions, Tensor& angles) const {
  for (int64_t t = 0; t < positions.dim(0); ++t) {
    const int32_t* position = positions.row<int32_t>(t);
    float* angle = angles.row<float>(t);
    for (size_t i = 0; i < frequencies_.size(); ++i) {
      angle[i] = static_cast<float>(position[frequencies_[i].axis]) * frequencies_[i].inverse;
    }
  }
}

}  // namespace skipper

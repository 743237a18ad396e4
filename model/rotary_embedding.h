// From rotary positions to the angles that the rope kernel turns by.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/model_config.h"
#include "tensor/tensor.h"

namespace skipper {

// Angles of the decoder's heads: frequency i turns with one of the three axes. In interleaved M-RoPE the axes alternate
// (T H W T H W ... T T), with `mrope_sections` frequencies each; in plain rope all frequencies follow the temporal axis,
// which for text equals the other two. Immutable.
class RotaryEmbedding {
 public:
  explicit RotaryEmbedding(const RotaryConfig& config);

  // positions [T, 3] i32, host · angles [T, dim / 2] f32, host, radians
  void angles(const Tensor& positions, Tensor& angles) const;

  struct Frequency {
    float inverse = 0.0f;  // radians per position
    int axis = 0;          // 0 temporal, 1 height, 2 width
  };
  std::span<const Frequency> frequencies() const { return frequencies_; }  // [dim / 2]

 private:
  std::vector<Frequency> frequencies_;
};

}  // namespace skipper

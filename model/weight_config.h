// The settings that say in which formats weights rest and meet activations.
#pragma once

#include <optional>

#include "kernels/weight_format.h"
#include "tensor/dtype.h"

namespace skipper {

struct WeightConfig {
  std::optional<WeightFormat> experts = {};  // absent: as in the checkpoint, floats as BF16
  std::optional<WeightFormat> dense = {};    // attention projections, dense feed-forward, head; absent: as in the checkpoint
  // What activations are rounded to before they meet BF16 weights: bf16 or f32 (left alone). Integer weights meet 8-bit codes.
  DType activation_dtype = DType::kBF16;

  // Throws InvalidFile naming the key ("weights.activation_dtype").
  void validate() const;
};

}  // namespace skipper

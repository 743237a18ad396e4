// What a step leaves of its logits: all of them, or only the tokens that were sampled from them.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace skipper {

// What the caller reads of the logits of a step.
enum class LogitUse : uint8_t {
  kLogits,
  // Only the token that BatchInput::samplings takes from each row. A GPU then keeps the logits to itself; the CPU gives logits
  // anyway, and its caller samples.
  kTokens,
};

// Host memory, valid until the next step. Exactly one of the two is defined.
struct StepOutput {
  Tensor logits;  // [L, V] f32
  Tensor tokens;  // [L] i32
};

}  // namespace skipper

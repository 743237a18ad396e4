// What a step leaves of its logits: all of them, or only which is the largest.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace skipper {

// What the caller reads of the logits of a step.
enum class LogitUse : uint8_t {
  kLogits,
  // Only the index of each row's largest logit, the lower one of equals, where NaN ranks lowest: all rows are sampled greedily.
  // A GPU then keeps the logits to itself; the CPU gives logits anyway.
  kGreedyTokens,
};

// Host memory, valid until the next step. Exactly one of the two is defined.
struct StepOutput {
  Tensor logits;         // [L, V] f32
  Tensor greedy_tokens;  // [L] i32
};

}  // namespace skipper

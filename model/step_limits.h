// How large a step may be; all step buffers are sized by it.
#pragma once

#include <cstdint>

namespace skipper {

// The same on every rank: a rank's buffers take in what the others may send.
struct StepLimits {
  int64_t max_tokens = 0;      // tokens of one rank in one step
  int64_t max_logit_rows = 0;  // of them, tokens whose logits are read
  // A GPU's buffers also depend on these.
  int64_t max_sequences = 256;   // with tokens in one step of one rank
  int64_t max_positions = 4096;  // of one sequence, prompt and answer
};

}  // namespace skipper

// What all ranks do alike in a forward pass, told by rank 0, so that they need not ask one another.
#pragma once

#include <cstdint>

namespace skipper {

// Bounds over all ranks, the same on every rank.
struct ForwardShape {
  int32_t most_rows = 0;        // tokens of the rank that has most
  int32_t most_logit_rows = 0;  // of them, those whose logits are read; may be more than any rank has
  bool is_decode = false;       // each sequence of each rank has one token, and the next is sampled
  // Rows that have room on their way from one GPU to another in decode steps; 0: most_rows. Where it proves too small, the ranks
  // run the step once more with room for all.
  int32_t slot_rows = 0;
};

}  // namespace skipper

// What skipping knows of each token of a micro-batch, and where it writes what it did.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace skipper {

// Columns of the table of what each token of a step cost, summed over layers.
enum class UsageColumn : uint8_t {
  kPairsRun = 0,
  kPairsSkipped = 1,
  kRowsSent = 2,   // hidden rows to other ranks; each also comes back
  kRowsSaved = 3,  // those that skipping spared
  kPairsOnShadows = 4,  // of those that run
};
inline constexpr int64_t kNumUsageColumns = 5;
inline constexpr int64_t kNumGpuUsageColumns = 4;  // GPUs have no shadows and leave the last one out

// Rows may be some of the step's tokens only: `step_token` says which.
struct TokenPolicies {
  // Prompt text at level 0 and a usage of zeros, every row its own token of the step.
  static TokenPolicies defaults(int64_t num_tokens);
  // The first `count` tokens, with the whole usage. Shares the memory.
  TokenPolicies first(int64_t count) const;

  Tensor token_class;  // [T] u8, TokenClass
  Tensor level;        // [T] u8, index in the LevelTable
  Tensor phase;        // [T] u8, TokenPhase
  Tensor step_token;   // [T] i32, row of `usage`
  Tensor keeps_all;    // [T] u8, 1 where no rule may take a pair in the layer that runs now; undefined: nowhere
  mutable Tensor usage;  // [tokens of the step, columns] i32; a tally, to which the layers only add

  int64_t num_tokens() const { return token_class.num_elements(); }
  bool keeps_all_pairs(int64_t row) const { return keeps_all.defined() && keeps_all.data<uint8_t>()[row] != 0; }
  void add_usage(int64_t row, UsageColumn column, int32_t count) const {
    usage.row<int32_t>(step_token.data<int32_t>()[row])[static_cast<size_t>(column)] += count;
  }
};

}  // namespace skipper

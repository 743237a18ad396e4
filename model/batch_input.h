// Everything one forward pass of one rank needs: token ids, positions, classes, KV slots and image features.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cluster/forward_shape.h"
#include "kernels/token_sampling.h"
#include "model/image_patches.h"
#include "model/step_output.h"
#include "tensor/tensor.h"

namespace skipper {

// Vision-encoder output of all images of one sequence, in placeholder order.
struct ImageFeatures {
  Tensor embeddings;              // [V, hidden] f32, replaces the placeholders' embeddings
  std::vector<Tensor> deepstack;  // one [V, hidden] f32 per deepstack level, added after decoder layers 0, 1, ...
};

// Tokens [first_token, first_token + num_tokens) of the step take feature rows [first_feature, ...) of `features`.
struct VisionSpan {
  int64_t first_token = 0;
  int64_t num_tokens = 0;
  const ImageFeatures* features = nullptr;
  int64_t first_feature = 0;
};

// T tokens of S sequences, concatenated sequence by sequence; both may be 0: an empty rank still takes part in every
// collective. Host tensors of exactly these sizes (views of buffers allocated once).
struct BatchInput {
  Tensor token_ids;         // [T] i32
  Tensor rotary_positions;  // [T, 3] i32: temporal, height, width (M-RoPE); all three equal for text
  Tensor positions;         // [T] i32, index in the sequence
  Tensor sequence_index;    // [T] i32, row of block_tables
  Tensor kv_slots;          // [T] i32, where the token's K and V go: block · block_size + row
  Tensor block_tables;      // [S, max_blocks_per_sequence] i32
  Tensor token_class;       // [T] u8, TokenClass
  Tensor level;             // [T] u8, index in the LevelTable
  Tensor phase;             // [T] u8, TokenPhase
  Tensor logit_rows;        // [L] i32 ascending, the tokens whose logits are read; of the others the last layer computes K, V

  std::vector<VisionSpan> vision_spans;  // image placeholders among the tokens, ascending
  LogitUse logit_use = LogitUse::kLogits;
  // [L], for kTokens: what each logit row is sampled by, each one that a PackedTokenSampling can hold. None: all are greedy.
  std::span<const TokenSampling> samplings;
  // What all ranks were told of the step. Without it the ranks of GPUs ask one another.
  std::optional<ForwardShape> shape_of_all;

  int64_t num_tokens() const { return token_ids.num_elements(); }
};

}  // namespace skipper

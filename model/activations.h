// Every buffer of one micro-batch, allocated once: T = max_tokens, R = max_logit_rows, H hidden, D head width.
#pragma once

#include <cstdint>

#include "expert_parallel/moe_layer.h"
#include "model/model_config.h"
#include "model/step_limits.h"
#include "tensor/tensor.h"

namespace skipper {

// The rows that travel through the decoder layers, one per token, and what a layer needs to know of each. n <= T rows; views.
struct DecoderRows {
  Tensor hidden;           // [n, H] f32, residual stream
  Tensor normed;           // [n, H] f32, input of the current sublayer
  Tensor angles;           // [n, D / 2] f32, rotary
  Tensor positions;        // [n] i32, index in the sequence
  Tensor sequence_index;   // [n] i32, row of the block tables
  TokenPolicies policies;  // [n]

  int64_t num_rows() const { return hidden.dim(0); }
  // The first `count` rows of every buffer.
  DecoderRows first(int64_t count) const;
};

// How large the buffers of the MoE layers are.
MoeBufferConfig moe_buffer_config(const ModelConfig& config, const StepLimits& limits, const DispatchConfig& formats);

struct Activations {
  Activations(const ModelConfig& config, const StepLimits& limits);

  DecoderRows tokens;       // all tokens of the step, room for T
  DecoderRows logit_rows;   // those whose logits are read, room for R

  // Attention.
  Tensor q;         // [T, heads, D] f32
  Tensor k;         // [T, kv_heads, D] f32
  Tensor v;         // [T, kv_heads, D] f32
  Tensor attended;  // [T, heads, D] f32

  Tensor keeps_all;  // [T] u8, TokenPolicies::keeps_all of the layer that runs

  Tensor sublayer_output;  // [T, H] f32, what attention or feed-forward add to the residual stream

  // Dense feed-forward layers; no rows when the model has none.
  Tensor activated;    // [T, I] f32
  Tensor row_index;    // [T] i32, 0, 1, ...
  Tensor row_offsets;  // [2] i32

  // [2] i32: row_offsets of one expert that takes the first `num_rows` rows; valid until the next call.
  Tensor offsets_of_one_expert(int64_t num_rows);

  Tensor logits;  // [R, V] f32
};

}  // namespace skipper

// What the vision tower does to whole rows on a GPU between its matrix products: norms, activations, sums, the split to heads.
//
// Products leave FP32 without their bias; what reads them adds it. The residual stream stays FP32, and what enters the next
// product is BF16. A row's bits do not depend on the other rows.
#pragma once

#include "kernels/gelu.h"
#include "kernels/layer_norm.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// y = x rounded to BF16: pixels on their way to the first product. x f32 · y bf16, a multiple of 4 elements each
void round_to_bf16(const Tensor& x, Tensor& y, Stream& stream);

// The learned position of a patch is a mix of four rows of a table: see position_mix() in model/vision_positions.h.
struct PositionMix {
  const Tensor& table;    // [cells, H] f32
  const Tensor& cells;    // [P, 4] i32
  const Tensor& weights;  // [P, 4] f32
};
// hidden[p] += bias + Σ_c weights[p][c] · table[cells[p][c]]. bias [H] f32 · hidden [P, H] f32, the product with the patches
void add_positions(const PositionMix& mix, const Tensor& bias, Tensor& hidden, Stream& stream);

// kernels/layer_norm.h, rounded. x [T, H] f32 · weight, bias [H] f32 · y [T, H] bf16
void layer_norm_to_bf16(const Tensor& x, const LayerNormWeights& weights, Tensor& y, Stream& stream);

// y = gelu(x + bias), rounded. x [T, N] f32 · bias [N] f32 · y [T, N] bf16
void gelu(const Tensor& x, const Tensor& bias, GeluForm form, Tensor& y, Stream& stream);

// hidden += x + bias: the end of a sublayer. x, hidden [T, H] f32 · bias [H] f32
void add_with_bias(const Tensor& x, const Tensor& bias, Tensor& hidden, Stream& stream);

// x += bias, for the last product of a chain. x [T, H] f32 · bias [H] f32
void add_bias(const Tensor& bias, Tensor& x, Stream& stream);

struct VisionHeadsInput {
  const Tensor& qkv;      // [P, 3 · heads · D] f32: queries, keys, values side by side
  const Tensor& bias;     // [3 · heads · D] f32
  const Tensor& cos_sin;  // [P, D] f32 as rotary_cos_sin() in decoder_rows.h makes it
};
struct VisionHeads {
  Tensor q, k, v;  // [P, heads, padded D] bf16, zeros beyond D: see padded_head_dim() in packed_attention.h
};
// Adds the bias, rotates queries and keys as kernels/rope.h, rounds.
void split_vision_heads(const VisionHeadsInput& input, VisionHeads& heads, Stream& stream);

}  // namespace skipper::cuda

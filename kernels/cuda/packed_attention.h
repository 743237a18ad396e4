// Bidirectional attention over packed sequences of different lengths on a GPU's tensor cores (the vision tower).
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// Width to which heads of D are padded with zeros: whole steps of the tensor cores, of a few sizes. D a multiple of 8 up to 128.
int64_t padded_head_dim(int64_t head_dim);

struct PackedAttentionInput {
  const Tensor& q;        // [T, heads, padded D] bf16, zeros beyond D
  const Tensor& k;        // as q
  const Tensor& v;        // as q
  const Tensor& offsets;  // [S + 1] i32 on the GPU, ascending from 0 to T
  int64_t longest = 0;    // rows of a sequence at most: chooses the launch, never a bit of the result
  float scale = 1.0f;
};
// softmax(q · kᵀ · scale) · v within each sequence s = rows [offsets[s], offsets[s + 1]), rounded to BF16. Softmax weights are
// rounded to BF16 before they meet v; sums are FP32. A sequence's bits do not depend on the others.
// out [T, heads · D] bf16
void packed_attention(const PackedAttentionInput& input, Tensor& out, Stream& stream);

}  // namespace skipper::cuda

// Bidirectional attention over packed sequences of different lengths (the vision tower).
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// softmax(q · kᵀ · scale) · v within each sequence s = rows [offsets[s], offsets[s + 1]).
struct PackedAttentionInput {
  const Tensor& q;        // [T, heads, D] f32
  const Tensor& k;        // [T, heads, D] f32
  const Tensor& v;        // [T, heads, D] f32
  const Tensor& offsets;  // [S + 1] i32, ascending from 0 to T
  float scale;
};
void packed_attention(const PackedAttentionInput& input, Tensor& out, Stream& stream);  // out [T, heads, D] f32

namespace cpu {
void packed_attention(const PackedAttentionInput& input, Tensor& out, ThreadPool& workers);
}

}  // namespace skipper

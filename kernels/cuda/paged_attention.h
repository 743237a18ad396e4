// Causal grouped-query attention over the paged KV cache in GPU memory, prefill and decode alike.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// Positions of one split: the keys from a multiple of it up to the next are summed apart and then added in ascending order, by
// the same arithmetic in prefill and decode, so that a query's bits depend on its own sequence alone.
inline constexpr int64_t kSplitPositions = 256;

// The queries of one step, sequence by sequence: rows [query_offsets[s], query_offsets[s + 1]) belong to sequence s and have
// consecutive positions up to positions of its last one. Rows beyond query_offsets[S] get zeros.
struct PagedAttentionInput {
  const Tensor& q;              // [T, heads, D] bf16, D = 16, 32, 64 or 128
  const Tensor& k_cache;        // [num_blocks · block_size, kv_heads, D] bf16
  const Tensor& v_cache;        // as k_cache
  const Tensor& query_offsets;  // [S + 1] i32
  const Tensor& first_position; // [S] i32: position of the sequence's first query of this step; it sees positions 0 .. itself
  const Tensor& block_tables;   // [S, max_blocks] i32: block b of the sequence holds positions [b · block_size, ...)
  int64_t block_size = 16;
  float scale = 1.0f;
  // Bounds known on the host; they choose the launch and never a bit of the result.
  int64_t max_queries = 1;   // of one sequence in this step; 1 = decode
  int64_t max_positions = 1; // of one sequence, its queries included
};

// Memory for the splits of a decode step, allocated once.
struct AttentionScratch {
  AttentionScratch(int64_t max_sequences, int64_t max_positions, int64_t num_heads, int64_t head_dim, Device device);
  Tensor partial;   // f32: sums, maxima and normalisers of every (query, head, split)
  Tensor arrivals;  // i32: splits that are done, of every (query, key/value head); zeros between launches
};

// out[t] = softmax(q[t] · kᵀ · scale) · v, rounded to BF16. Softmax weights are rounded to BF16 before they meet v; sums are
// FP32. out [T, heads, D] bf16
void paged_attention(const PagedAttentionInput& input, AttentionScratch& scratch, Tensor& out, Stream& stream);

}  // namespace skipper::cuda

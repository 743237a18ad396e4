// Causal grouped-query attention over a paged KV cache, and the store into that cache.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// Key/value memory of one layer. Token position p of a sequence lives in block block_table[p / block_size] at row
// p % block_size (Kwon et al. 2023, section 4.1).
struct PagedKv {
  Tensor k;  // [num_blocks, block_size, kv_heads, D] bf16 or f32
  Tensor v;  // as k
};

// Writes row t of k and v to cache row slots[t] (block · block_size + row), rounding to the cache's element type.
// k, v [T, kv_heads, D] f32 · slots [T] i32
void store_kv(const Tensor& k, const Tensor& v, const Tensor& slots, PagedKv& cache, Stream& stream);

// The queries of one step. Query t belongs to sequence sequence_index[t] and sees positions 0..positions[t] of it.
struct PagedAttentionInput {
  const Tensor& q;               // [T, heads, D] f32
  const Tensor& sequence_index;  // [T] i32, row of block_tables
  const Tensor& positions;       // [T] i32, index in the sequence (not the rotary position)
  const Tensor& block_tables;    // [S, max_blocks] i32
  float scale;
};

// out[t] = softmax(q[t] · kᵀ · scale) · v, summed from position 0 upward: a query's bits depend only on its own sequence,
// not on the batch nor on how its prompt was cut into chunks. out [T, heads, D] f32
void paged_attention(const PagedAttentionInput& input, const PagedKv& cache, Tensor& out, Stream& stream);

namespace cpu {
void store_kv(const Tensor& k, const Tensor& v, const Tensor& slots, PagedKv& cache);
void paged_attention(const PagedAttentionInput& input, const PagedKv& cache, Tensor& out);
}  // namespace cpu

}  // namespace skipper

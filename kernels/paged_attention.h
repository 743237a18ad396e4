// Causal grouped-query attention over a paged KV cache, and the store into that cache.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

struct PagedKvShape {
  int64_t num_blocks = 0;
  int64_t block_size = 0;  // a positive multiple of kKvPanelPositions
  int64_t kv_heads = 0;
  int64_t head_dim = 0;

  friend bool operator==(const PagedKvShape&, const PagedKvShape&) = default;
};

// Positions whose keys, and whose values, of one head lie interleaved in one panel: kernels/cpu/kv_panel.h.
inline constexpr int64_t kKvPanelPositions = 16;

// Key/value memory of one layer. Token position p of a sequence lives in block block_table[p / block_size] at row
// p % block_size (Kwon et al. 2023, section 4.1). With an f32 cache attention computes in FP32; with a bf16 cache queries and
// softmax weights are rounded to BF16 too, and sums stay FP32.
struct PagedKv {
  PagedKvShape shape;
  Tensor k;  // [num_blocks, kv_heads, block_size / 16, 16 · head_dim padded to 16] panels of keys, bf16 or f32
  Tensor v;  // as k, panels of values
};

// Uninitialised memory for keys and values: attention reads only what store_kv has written. Throws DeviceError without memory.
PagedKv empty_paged_kv(const PagedKvShape& shape, DType dtype, Device device = Device::host());
size_t paged_kv_bytes(const PagedKvShape& shape, DType dtype);

// Writes row t of k and v to cache row slots[t] (block · block_size + row), rounding to the cache's element type.
// k, v [T, kv_heads, D] f32 · slots [T] i32, all different
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
// not on the batch, on how its prompt was cut into chunks, nor on the number of threads. out [T, heads, D] f32
void paged_attention(const PagedAttentionInput& input, const PagedKv& cache, Tensor& out, Stream& stream);

namespace cpu {
void store_kv(const Tensor& k, const Tensor& v, const Tensor& slots, PagedKv& cache, ThreadPool& workers);
void paged_attention(const PagedAttentionInput& input, const PagedKv& cache, Tensor& out, ThreadPool& workers);
}  // namespace cpu

}  // namespace skipper

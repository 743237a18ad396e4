// What a decoder layer does to whole rows on a GPU, fused so that each row is read and written once per sublayer.
//
// One block of threads per row (or per head), sums in a fixed order: a row's bits do not depend on the others. Rounding to BF16
// is to nearest even and happens where the CPU kernels round: at the input of a matrix and in the KV cache.
#pragma once

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// hidden[t] = table[ids[t]], zeros for id −1. ids [T] i32 · table [V, H] bf16 or f32 · hidden [T, H] f32
void embed_tokens(const Tensor& ids, const Tensor& table, Tensor& hidden, Stream& stream);

// hidden[rows[i]] = features[i] (kReplace) or += (kAdd). features [n, H] f32 · rows [n] i32, −1 = none
enum class SpliceKind : uint8_t { kReplace, kAdd };
void splice_rows(const Tensor& features, const Tensor& rows, SpliceKind kind, Tensor& hidden, Stream& stream);

// y[i] = x[rows[i]], any element type of 4 bytes or BF16; zeros for row −1. x [T, ...] · rows [n] i32 · y [n, ...]
void gather_rows(const Tensor& x, const Tensor& rows, Tensor& y, Stream& stream);

struct NormWeights {
  const Tensor& weight;  // [H] f32
  float epsilon = 1e-6f;
};
// Result of a norm: in FP32 for the router (undefined: not wanted), and rounded for the matrices.
struct NormedRows {
  Tensor f32;   // [T, H] f32, or undefined
  Tensor bf16;  // [T, H] bf16
};
// kernels/rms_norm.h in stream order on a GPU. hidden [T, H] f32
void rms_norm(const Tensor& hidden, const NormWeights& weights, NormedRows& out, Stream& stream);
// hidden += delta, then the norm. delta [T, H] f32
void add_rms_norm(const Tensor& delta, const NormWeights& weights, Tensor& hidden, NormedRows& out, Stream& stream);

// angles[t][i] = float(positions[t][axis[i]]) · inverse_frequency[i], i < D / 2; the cosine and sine of it.
// positions [T, 3] i32 · axis [D / 2] i32 · inverse_frequency [D / 2] f32 · cos_sin [T, D] f32: D / 2 cosines, then D / 2 sines
struct RotaryTable {
  const Tensor& axis;
  const Tensor& inverse_frequency;
};
void rotary_cos_sin(const Tensor& positions, const RotaryTable& table, Tensor& cos_sin, Stream& stream);

// After the projection to queries, keys and values: adds biases, normalises and rotates the heads of q and k, rounds to BF16,
// leaves the queries in `q` and stores keys and values in the cache.
struct HeadsInput {
  const Tensor& qkv;      // [T, (heads + 2 · kv_heads) · D] f32 or bf16: queries, keys, values side by side
  const Tensor& bias;     // [(heads + 2 · kv_heads) · D] f32, or undefined
  const Tensor& q_norm;   // [D] f32
  const Tensor& k_norm;   // [D] f32
  float epsilon = 1e-6f;
  const Tensor& cos_sin;  // [T, D] f32
  const Tensor& slots;    // [T] i32, row of the cache; −1: nothing is stored
};
struct HeadsOutput {
  Tensor& q;        // [T, heads, D] bf16
  Tensor& k_cache;  // [num_blocks · block_size, kv_heads, D] bf16, row = slot
  Tensor& v_cache;  // as k_cache
};
void split_heads(const HeadsInput& input, const HeadsOutput& output, Stream& stream);

}  // namespace skipper::cuda

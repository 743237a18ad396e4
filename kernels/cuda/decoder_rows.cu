// Rows are read once into registers, four elements at a time, and written once: with many rows these kernels run at the speed of
// memory, and with few of them each costs little more than its launch.
#include "kernels/cuda/decoder_rows.h"

#include <glog/logging.h>

#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_norm.cuh"
#include "kernels/cuda/row_vectors.cuh"

namespace skipper::cuda {
namespace {

constexpr int kThreads = kRowThreads;

unsigned blocks_for(int64_t items, int64_t per_block) { return static_cast<unsigned>((items + per_block - 1) / per_block); }

// --- Rows that move ----------------------------------------------------------------------------------------------------------

template <typename T>
__global__ void __launch_bounds__(kThreads) embed_rows(const int32_t* ids, const T* table, int64_t vocab_size, int num_vectors,
                                                       float* hidden) {
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int64_t id = ids[blockIdx.x];
  const bool known = id >= 0 && id < vocab_size;
  const T* const source = table + (known ? id : 0) * 4 * num_vectors;
  float* const target = hidden + int64_t{blockIdx.x} * 4 * num_vectors;
  for (int i = threadIdx.x; i < num_vectors; i += blockDim.x) store_four(known ? load_four(source, i) : Four{}, target, i);
}

template <SpliceKind kKind>
__global__ void __launch_bounds__(kThreads) splice(const float* features, const int32_t* rows, int64_t num_hidden_rows,
                                                   int num_vectors, float* hidden) {
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int64_t row = rows[blockIdx.x];
  if (row < 0 || row >= num_hidden_rows) return;
  const float* const source = features + int64_t{blockIdx.x} * 4 * num_vectors;
  float* const target = hidden + row * 4 * num_vectors;
  for (int i = threadIdx.x; i < num_vectors; i += blockDim.x) {
    const Four feature = load_four(source, i);
    store_four(kKind == SpliceKind::kAdd ? load_four(target, i) + feature : feature, target, i);
  }
}

// Word: the widest type that row sizes and addresses allow.
template <typename Word>
__global__ void __launch_bounds__(kThreads) gather(const Word* x, const int32_t* rows, int64_t num_source_rows, int words_per_row,
                                                   Word* y) {
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int64_t row = rows[blockIdx.x];
  const bool known = row >= 0 && row < num_source_rows;
  const Word* const source = x + (known ? row : 0) * words_per_row;
  Word* const target = y + int64_t{blockIdx.x} * words_per_row;
  for (int i = threadIdx.x; i < words_per_row; i += blockDim.x) target[i] = known ? source[i] : Word{};
}

template <typename Word>
void launch_gather(const Tensor& x, const Tensor& rows, Tensor& y, Stream& stream) {
  const int64_t words = y.row_elements() * static_cast<int64_t>(size_of(y.dtype())) / static_cast<int64_t>(sizeof(Word));
  launch(gather<Word>, row_per_block(rows.dim(0), words), stream, reinterpret_cast<const Word*>(x.bytes()), rows.data<int32_t>(),
         x.dim(0), static_cast<int>(words), reinterpret_cast<Word*>(y.bytes()));
}

// --- Norms -------------------------------------------------------------------------------------------------------------------

// delta: added to the rows where kAdd.
template <int kVectors, bool kAdd>
__global__ void __launch_bounds__(kThreads) norm_rows(NormArguments arguments, const float* delta) {
  __shared__ float partial[kThreads / 32];
  Four weight[kVectors], x[kVectors];
  const int64_t row = int64_t{blockIdx.x} * 4 * arguments.num_vectors;
  arguments.prefetch_row(row, static_cast<int>(threadIdx.x));
  arguments.load_weight(weight);
  allow_next_kernel();
  wait_for_earlier_kernels();
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int i = v * kThreads + threadIdx.x;
    if (i >= arguments.num_vectors) continue;
    x[v] = load_four(arguments.x + row, i);
    if (kAdd) x[v] = x[v] + load_four(delta + row, i);
  }
  store_norm(arguments, row, x, weight, partial);
}

template <bool kAdd>
void launch_norm(const NormArguments& arguments, const float* delta, int64_t num_rows, Stream& stream) {
  with_vectors_per_thread(arguments.num_vectors, [&](auto vectors) {
    launch(norm_rows<vectors(), kAdd>, {dim3(static_cast<unsigned>(num_rows)), dim3(kThreads)}, stream, arguments, delta);
  });
}

// --- Heads -------------------------------------------------------------------------------------------------------------------

__global__ void __launch_bounds__(kThreads) cos_sin_rows(const int32_t* positions, const int32_t* axis,
                                                         const float* inverse_frequency, int half, int64_t num_angles,
                                                         float* cos_sin) {
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= num_angles) return;
  const int64_t token = index / half;
  const int i = static_cast<int>(index % half);
  const float angle = static_cast<float>(positions[token * 3 + axis[i]]) * inverse_frequency[i];
  float sine, cosine;
  sincosf(angle, &sine, &cosine);
  cos_sin[token * 2 * half + i] = cosine;
  cos_sin[token * 2 * half + half + i] = sine;
}

struct HeadsArguments {
  const void* qkv;
  const float* bias;  // null: none
  const float* q_norm;
  const float* k_norm;
  const float* cos_sin;
  const int32_t* slots;
  __nv_bfloat16* q;
  __nv_bfloat16* k_cache;
  __nv_bfloat16* v_cache;
  int num_heads;
  int num_kv_heads;
  float epsilon;
};

// The lanes that share a head hold four neighbours each, so what the rotation pairs with them is half as many lanes away.
template <int kHeadDim>
__device__ __forceinline__ Four rotate(const Four& x, const float* cos_sin, int lane) {
  constexpr int kLanes = kHeadDim / 4, kHalf = kLanes / 2;
  const Four partner{__shfl_xor_sync(0xffffffffu, x.x, kHalf), __shfl_xor_sync(0xffffffffu, x.y, kHalf),
                     __shfl_xor_sync(0xffffffffu, x.z, kHalf), __shfl_xor_sync(0xffffffffu, x.w, kHalf)};
  const Four cosine = load_four(cos_sin, lane % kHalf);
  const Four sine = load_four(cos_sin, kHalf + lane % kHalf);
  return x * cosine + partner * (sine * (lane < kHalf ? -1.0f : 1.0f));
}

// blockIdx.x: token, blockIdx.y: piece of its heads; kHeadDim / 4 lanes per head. All lanes of a warp stay until the last
// shuffle, those beyond the last head with zeros.
template <int kHeadDim, typename T>
__global__ void __launch_bounds__(kThreads) heads_of_rows(HeadsArguments a) {
  constexpr int kLanes = kHeadDim / 4, kHeadsPerBlock = kThreads / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int head = static_cast<int>(blockIdx.y) * kHeadsPerBlock + static_cast<int>(threadIdx.x) / kLanes;
  const int first_k = a.num_heads, first_v = first_k + a.num_kv_heads, all_heads = first_v + a.num_kv_heads;
  const bool exists = head < all_heads;
  const Four bias = exists && a.bias != nullptr ? load_four(a.bias + head * kHeadDim, lane) : Four{};
  const Four weight = load_four(head < first_k ? a.q_norm : a.k_norm, lane);
  const int64_t token = blockIdx.x;
  if (threadIdx.x < kLanes) prefetch_to_l2(a.cos_sin + token * kHeadDim + 4 * lane);
  if (threadIdx.x == 0) prefetch_to_l2(a.slots + token);
  allow_next_kernel();
  wait_for_earlier_kernels();

  Four x{};
  if (exists) x = load_four(static_cast<const T*>(a.qkv) + (token * all_heads + head) * kHeadDim, lane) + bias;
  const float squares = group_sum(sum_of(x * x), kLanes);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(kHeadDim) + a.epsilon);
  const Four rotated = rotate<kHeadDim>(x * scale * weight, a.cos_sin + token * kHeadDim, lane);
  if (!exists) return;

  if (head < first_k) return store_four(rotated, a.q + (token * a.num_heads + head) * kHeadDim, lane);
  const int64_t slot = a.slots[token];
  if (slot < 0) return;
  const bool is_value = head >= first_v;
  const int64_t row = slot * a.num_kv_heads + head - (is_value ? first_v : first_k);
  store_four(is_value ? x : rotated, (is_value ? a.v_cache : a.k_cache) + row * kHeadDim, lane);
}

template <int kHeadDim>
void launch_heads(const HeadsArguments& arguments, const Tensor& qkv, Stream& stream) {
  constexpr int kHeadsPerBlock = kThreads / (kHeadDim / 4);
  const int all_heads = arguments.num_heads + 2 * arguments.num_kv_heads;
  const LaunchShape shape{dim3(static_cast<unsigned>(qkv.dim(0)), blocks_for(all_heads, kHeadsPerBlock)), dim3(kThreads)};
  if (qkv.dtype() == DType::kF32) return launch(heads_of_rows<kHeadDim, float>, shape, stream, arguments);
  launch(heads_of_rows<kHeadDim, __nv_bfloat16>, shape, stream, arguments);
}

void check_heads(const HeadsInput& input, const HeadsOutput& output) {
  constexpr std::string_view kName = "split_heads";
  check_rank(kName, output.q, 3);
  check_rank(kName, output.k_cache, 3);
  const int64_t tokens = output.q.dim(0), heads = output.q.dim(1), head_dim = output.q.dim(2), kv_heads = output.k_cache.dim(1);
  const int64_t width = (heads + 2 * kv_heads) * head_dim;
  CHECK(input.qkv.dtype() == DType::kF32 || input.qkv.dtype() == DType::kBF16) << "split_heads: " << name_of(input.qkv.dtype());
  check_operand(kName, input.qkv, input.qkv.dtype(), {tokens, width});
  if (input.bias.defined()) check_operand(kName, input.bias, DType::kF32, {width});
  check_operand(kName, input.q_norm, DType::kF32, {head_dim});
  check_operand(kName, input.k_norm, DType::kF32, {head_dim});
  check_operand(kName, input.cos_sin, DType::kF32, {tokens, head_dim});
  check_operand(kName, input.slots, DType::kI32, {tokens});
  check_operand(kName, output.q, DType::kBF16, output.q.shape());
  check_operand(kName, output.k_cache, DType::kBF16, {output.k_cache.dim(0), kv_heads, head_dim});
  check_operand(kName, output.v_cache, DType::kBF16, output.k_cache.shape());
}

}  // namespace

void embed_tokens(const Tensor& ids, const Tensor& table, Tensor& hidden, Stream& stream) {
  constexpr std::string_view kName = "embed_tokens";
  check_rank(kName, table, 2);
  CHECK(table.dtype() == DType::kF32 || table.dtype() == DType::kBF16) << "embed_tokens: a table of " << name_of(table.dtype());
  CHECK_EQ(table.dim(1) % 4, 0) << "embed_tokens: rows of " << table.dim(1) << " are not whole vectors of four";
  check_operand(kName, table, table.dtype(), table.shape());
  check_operand(kName, ids, DType::kI32, {ids.dim(0)});
  check_operand(kName, hidden, DType::kF32, {ids.dim(0), table.dim(1)});
  const int num_vectors = static_cast<int>(table.dim(1) / 4);
  const LaunchShape shape = row_per_block(ids.dim(0), num_vectors);
  if (table.dtype() == DType::kF32) {
    return launch(embed_rows<float>, shape, stream, ids.data<int32_t>(), table.data<float>(), table.dim(0), num_vectors,
                  hidden.data<float>());
  }
  launch(embed_rows<__nv_bfloat16>, shape, stream, ids.data<int32_t>(), reinterpret_cast<const __nv_bfloat16*>(table.bytes()),
         table.dim(0), num_vectors, hidden.data<float>());
}

void splice_rows(const Tensor& features, const Tensor& rows, SpliceKind kind, Tensor& hidden, Stream& stream) {
  constexpr std::string_view kName = "splice_rows";
  check_rank(kName, hidden, 2);
  check_operand(kName, hidden, DType::kF32, hidden.shape());
  check_operand(kName, rows, DType::kI32, {rows.dim(0)});
  check_operand(kName, features, DType::kF32, {rows.dim(0), hidden.dim(1)});
  CHECK_EQ(hidden.dim(1) % 4, 0) << "splice_rows: rows of " << hidden.dim(1) << " are not whole vectors of four";
  const int num_vectors = static_cast<int>(hidden.dim(1) / 4);
  const auto kernel = kind == SpliceKind::kAdd ? splice<SpliceKind::kAdd> : splice<SpliceKind::kReplace>;
  launch(kernel, row_per_block(rows.dim(0), num_vectors), stream, features.data<float>(), rows.data<int32_t>(), hidden.dim(0),
         num_vectors, hidden.data<float>());
}

void gather_rows(const Tensor& x, const Tensor& rows, Tensor& y, Stream& stream) {
  constexpr std::string_view kName = "gather_rows";
  CHECK(size_of(x.dtype()) == 4 || x.dtype() == DType::kBF16) << "gather_rows: " << name_of(x.dtype());
  check_operand(kName, x, x.dtype(), x.shape());
  check_operand(kName, rows, DType::kI32, {rows.dim(0)});
  check_operand(kName, y, x.dtype(), x.shape().with_first(rows.dim(0)));
  if (y.num_elements() == 0) return;
  const int64_t row_bytes = y.row_elements() * static_cast<int64_t>(size_of(y.dtype()));
  if (row_bytes % 16 == 0) return launch_gather<uint4>(x, rows, y, stream);
  if (row_bytes % 4 == 0) return launch_gather<uint32_t>(x, rows, y, stream);
  launch_gather<uint16_t>(x, rows, y, stream);
}

void rms_norm(const Tensor& hidden, const NormWeights& weights, NormedRows& out, Stream& stream) {
  launch_norm<false>(check_norm(hidden, weights, out), nullptr, hidden.dim(0), stream);
}

void add_rms_norm(const Tensor& delta, const NormWeights& weights, Tensor& hidden, NormedRows& out, Stream& stream) {
  check_operand("add_rms_norm", delta, DType::kF32, hidden.shape());
  NormArguments arguments = check_norm(hidden, weights, out);
  arguments.sum = hidden.data<float>();
  launch_norm<true>(arguments, delta.data<float>(), hidden.dim(0), stream);
}

void rotary_cos_sin(const Tensor& positions, const RotaryTable& table, Tensor& cos_sin, Stream& stream) {
  constexpr std::string_view kName = "rotary_cos_sin";
  const int64_t half = table.inverse_frequency.dim(0), num_angles = positions.dim(0) * half;
  check_operand(kName, positions, DType::kI32, {positions.dim(0), 3});
  check_operand(kName, table.axis, DType::kI32, {half});
  check_operand(kName, table.inverse_frequency, DType::kF32, {half});
  check_operand(kName, cos_sin, DType::kF32, {positions.dim(0), 2 * half});
  launch(cos_sin_rows, {dim3(blocks_for(num_angles, kThreads)), dim3(kThreads)}, stream, positions.data<int32_t>(),
         table.axis.data<int32_t>(), table.inverse_frequency.data<float>(), static_cast<int>(half), num_angles,
         cos_sin.data<float>());
}

void split_heads(const HeadsInput& input, const HeadsOutput& output, Stream& stream) {
  check_heads(input, output);
  HeadsArguments arguments{};
  arguments.qkv = input.qkv.bytes();
  arguments.bias = input.bias.defined() ? input.bias.data<float>() : nullptr;
  arguments.q_norm = input.q_norm.data<float>();
  arguments.k_norm = input.k_norm.data<float>();
  arguments.cos_sin = input.cos_sin.data<float>();
  arguments.slots = input.slots.data<int32_t>();
  arguments.q = reinterpret_cast<__nv_bfloat16*>(output.q.bytes());
  arguments.k_cache = reinterpret_cast<__nv_bfloat16*>(output.k_cache.bytes());
  arguments.v_cache = reinterpret_cast<__nv_bfloat16*>(output.v_cache.bytes());
  arguments.num_heads = static_cast<int>(output.q.dim(1));
  arguments.num_kv_heads = static_cast<int>(output.k_cache.dim(1));
  arguments.epsilon = input.epsilon;
  switch (output.q.dim(2)) {
    case 16: return launch_heads<16>(arguments, input.qkv, stream);
    case 32: return launch_heads<32>(arguments, input.qkv, stream);
    case 64: return launch_heads<64>(arguments, input.qkv, stream);
    case 128: return launch_heads<128>(arguments, input.qkv, stream);
    default: LOG(FATAL) << "split_heads: heads of " << output.q.dim(2);
  }
}

}  // namespace skipper::cuda

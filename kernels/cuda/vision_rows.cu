// One block per row, four elements at a time: images have thousands of rows, so these kernels run at the speed of memory.
#include "kernels/cuda/vision_rows.h"

#include <glog/logging.h>

#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/packed_attention.h"
#include "kernels/cuda/row_vectors.cuh"

namespace skipper::cuda {
namespace {

// Fours of a row of `width` elements.
int num_fours(std::string_view kernel, int64_t width) {
  CHECK_GT(width, 0) << kernel << ": empty rows";
  CHECK_EQ(width % 4, 0) << kernel << ": rows of " << width << " are not whole vectors of four";
  return static_cast<int>(width / 4);
}

__nv_bfloat16* bf16_of(Tensor& tensor) { return reinterpret_cast<__nv_bfloat16*>(tensor.bytes()); }

__global__ void __launch_bounds__(kRowThreads) round_vectors(const float* x, int64_t num_vectors, __nv_bfloat16* y) {
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int64_t i = int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  if (i < num_vectors) store_four(load_four(x, i), y, i);
}

struct PositionArguments {
  const float* table;
  const int32_t* cells;
  const float* weights;
  const float* bias;
  float* hidden;
  int num_vectors;
};

__global__ void __launch_bounds__(kRowThreads) mix_positions(PositionArguments a) {
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x, width = 4 * int64_t{a.num_vectors};
  const int4 cells = reinterpret_cast<const int4*>(a.cells)[row];
  const float4 weights = reinterpret_cast<const float4*>(a.weights)[row];
  float* const hidden = a.hidden + row * width;
  for (int i = threadIdx.x; i < a.num_vectors; i += blockDim.x) {
    const Four low = load_four(a.table + cells.x * width, i) * weights.x + load_four(a.table + cells.y * width, i) * weights.y;
    const Four high = load_four(a.table + cells.z * width, i) * weights.z + load_four(a.table + cells.w * width, i) * weights.w;
    store_four(load_four(hidden, i) + load_four(a.bias, i) + (low + high), hidden, i);
  }
}

struct LayerNormArguments {
  const float* x;
  const float* weight;
  const float* bias;
  __nv_bfloat16* y;
  int num_vectors;
  float epsilon;
};

// A row stays in registers: kVectors fours in each of kRowThreads threads. Mean first, then the squares of the centred values:
// E[x²] − E[x]² would cancel.
template <int kVectors>
__global__ void __launch_bounds__(kRowThreads) layer_norm_rows(LayerNormArguments a) {
  __shared__ float partial_sums[kRowThreads / 32], partial_squares[kRowThreads / 32];
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int64_t row = int64_t{blockIdx.x} * 4 * a.num_vectors;
  const float inverse_size = 1.0f / static_cast<float>(4 * a.num_vectors);
  Four x[kVectors];
  float sum = 0.0f;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int i = v * kRowThreads + threadIdx.x;
    if (i < a.num_vectors) x[v] = load_four(a.x + row, i);
    sum += sum_of(x[v]);
  }
  const float mean = block_sum<kRowThreads>(sum, partial_sums) * inverse_size;
  float squares = 0.0f;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (v * kRowThreads + static_cast<int>(threadIdx.x) >= a.num_vectors) continue;
    x[v] = x[v] - mean;
    squares += sum_of(x[v] * x[v]);
  }
  const float variance = block_sum<kRowThreads>(squares, partial_squares) * inverse_size;
  const float scale = 1.0f / sqrtf(variance + a.epsilon);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int i = v * kRowThreads + threadIdx.x;
    if (i >= a.num_vectors) continue;
    store_four(x[v] * scale * load_four(a.weight, i) + load_four(a.bias, i), a.y + row, i);
  }
}

template <GeluForm kForm>
__device__ __forceinline__ float gelu_of(float x) {
  if (kForm == GeluForm::kErf) return 0.5f * x * (1.0f + erff(x * 0.70710678f));
  // x · (1 + tanh(u)) / 2 = x / (1 + e^(−2u)) with u = sqrt(2/π) · (x + 0.044715 · x³).
  constexpr float kMinusTwoSqrtTwoOverPi = -1.5957691216f;
  return x / (1.0f + expf(kMinusTwoSqrtTwoOverPi * (x + 0.044715f * x * x * x)));
}

template <GeluForm kForm>
__global__ void __launch_bounds__(kRowThreads) gelu_rows(const float* x, const float* bias, int num_vectors, __nv_bfloat16* y) {
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int64_t row = int64_t{blockIdx.x} * 4 * num_vectors;
  for (int i = threadIdx.x; i < num_vectors; i += blockDim.x) {
    const Four v = load_four(x + row, i) + load_four(bias, i);
    store_four({gelu_of<kForm>(v.x), gelu_of<kForm>(v.y), gelu_of<kForm>(v.z), gelu_of<kForm>(v.w)}, y + row, i);
  }
}

// x: null where the bias alone is added.
__global__ void __launch_bounds__(kRowThreads) add_rows(const float* x, const float* bias, int num_vectors, float* hidden) {
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int64_t row = int64_t{blockIdx.x} * 4 * num_vectors;
  for (int i = threadIdx.x; i < num_vectors; i += blockDim.x) {
    const Four bias_four = load_four(bias, i);
    const Four addend = x == nullptr ? bias_four : load_four(x + row, i) + bias_four;
    store_four(load_four(hidden + row, i) + addend, hidden + row, i);
  }
}

struct SplitArguments {
  const float* qkv;
  const float* bias;
  const float* cos_sin;
  __nv_bfloat16* q;
  __nv_bfloat16* k;
  __nv_bfloat16* v;
  int num_heads;
  int head_dim;
  int padded_dim;
};

// Where a head goes; `head` counts the queries', the keys' and the values' in turn.
__device__ __forceinline__ __nv_bfloat16* target_of(const SplitArguments& a, int head) {
  __nv_bfloat16* const part = head < a.num_heads ? a.q : head < 2 * a.num_heads ? a.k : a.v;
  return part + (int64_t{blockIdx.x} * a.num_heads + head % a.num_heads) * a.padded_dim;
}

// Vector `i` of a head's first half with its partner of the second half, which it rotates with; values do not rotate.
__device__ __forceinline__ void split_pair(const SplitArguments& a, int head, int i) {
  const int64_t token = blockIdx.x;
  const int half = a.head_dim / 8;  // fours
  const int column = head * a.head_dim;
  const float* const source = a.qkv + token * 3 * a.num_heads * a.head_dim + column;
  const Four low = load_four(source, i) + load_four(a.bias + column, i);
  const Four high = load_four(source, half + i) + load_four(a.bias + column, half + i);
  __nv_bfloat16* const target = target_of(a, head);
  if (head >= 2 * a.num_heads) {
    store_four(low, target, i);
    return store_four(high, target, half + i);
  }
  const Four cosine = load_four(a.cos_sin + token * a.head_dim, i);
  const Four sine = load_four(a.cos_sin + token * a.head_dim, half + i);
  store_four(low * cosine + high * (sine * -1.0f), target, i);
  store_four(high * cosine + low * sine, target, half + i);
}

__global__ void __launch_bounds__(kRowThreads) split_rows(SplitArguments a) {
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int pairs = a.head_dim / 8, all_heads = 3 * a.num_heads;
  for (int item = threadIdx.x; item < all_heads * pairs; item += blockDim.x) {
    split_pair(a, item / pairs, item % pairs);
  }
  const int padding = (a.padded_dim - a.head_dim) / 4;
  for (int item = threadIdx.x; item < all_heads * padding; item += blockDim.x) {
    store_four({}, target_of(a, item / padding), a.head_dim / 4 + item % padding);
  }
}

}  // namespace

void round_to_bf16(const Tensor& x, Tensor& y, Stream& stream) {
  check_operand("round_to_bf16", x, DType::kF32, y.shape());
  check_operand("round_to_bf16", y, DType::kBF16, y.shape());
  CHECK_EQ(x.num_elements() % 4, 0) << "round_to_bf16: " << x.num_elements() << " elements are not whole vectors of four";
  const int64_t num_vectors = x.num_elements() / 4;
  const auto blocks = static_cast<unsigned>((num_vectors + kRowThreads - 1) / kRowThreads);
  launch(round_vectors, {dim3(blocks), dim3(kRowThreads)}, stream, x.data<float>(), num_vectors, bf16_of(y));
}

void add_positions(const PositionMix& mix, const Tensor& bias, Tensor& hidden, Stream& stream) {
  constexpr std::string_view kName = "add_positions";
  check_rank(kName, hidden, 2);
  check_rank(kName, mix.table, 2);
  const int64_t patches = hidden.dim(0), width = hidden.dim(1);
  check_operand(kName, hidden, DType::kF32, hidden.shape());
  check_operand(kName, mix.table, DType::kF32, {mix.table.dim(0), width});
  check_operand(kName, mix.cells, DType::kI32, {patches, 4});
  check_operand(kName, mix.weights, DType::kF32, {patches, 4});
  check_operand(kName, bias, DType::kF32, {width});
  const int num_vectors = num_fours(kName, width);
  launch(mix_positions, row_per_block(patches, num_vectors), stream,
         PositionArguments{mix.table.data<float>(), mix.cells.data<int32_t>(), mix.weights.data<float>(), bias.data<float>(),
                           hidden.data<float>(), num_vectors});
}

void layer_norm_to_bf16(const Tensor& x, const LayerNormWeights& weights, Tensor& y, Stream& stream) {
  constexpr std::string_view kName = "layer_norm";
  check_rank(kName, x, 2);
  check_operand(kName, x, DType::kF32, x.shape());
  check_operand(kName, weights.weight, DType::kF32, {x.dim(1)});
  check_operand(kName, weights.bias, DType::kF32, {x.dim(1)});
  check_operand(kName, y, DType::kBF16, x.shape());
  const int num_vectors = num_fours(kName, x.dim(1));
  const LayerNormArguments arguments{x.data<float>(), weights.weight.data<float>(), weights.bias.data<float>(), bf16_of(y),
                                     num_vectors, weights.epsilon};
  const LaunchShape shape{dim3(static_cast<unsigned>(x.dim(0))), dim3(kRowThreads)};
  const int vectors_per_thread = (num_vectors + kRowThreads - 1) / kRowThreads;
  if (vectors_per_thread <= 1) return launch(layer_norm_rows<1>, shape, stream, arguments);
  if (vectors_per_thread <= 2) return launch(layer_norm_rows<2>, shape, stream, arguments);
  if (vectors_per_thread <= 4) return launch(layer_norm_rows<4>, shape, stream, arguments);
  CHECK_LE(vectors_per_thread, 8) << "layer_norm: rows of " << x.dim(1);
  launch(layer_norm_rows<8>, shape, stream, arguments);
}

void gelu(const Tensor& x, const Tensor& bias, GeluForm form, Tensor& y, Stream& stream) {
  check_rank("gelu", x, 2);
  check_operand("gelu", x, DType::kF32, x.shape());
  check_operand("gelu", bias, DType::kF32, {x.dim(1)});
  check_operand("gelu", y, DType::kBF16, x.shape());
  const int num_vectors = num_fours("gelu", x.dim(1));
  const auto kernel = form == GeluForm::kErf ? gelu_rows<GeluForm::kErf> : gelu_rows<GeluForm::kTanh>;
  launch(kernel, row_per_block(x.dim(0), num_vectors), stream, x.data<float>(), bias.data<float>(), num_vectors, bf16_of(y));
}

void add_with_bias(const Tensor& x, const Tensor& bias, Tensor& hidden, Stream& stream) {
  check_rank("add_with_bias", hidden, 2);
  check_operand("add_with_bias", hidden, DType::kF32, hidden.shape());
  check_operand("add_with_bias", x, DType::kF32, hidden.shape());
  check_operand("add_with_bias", bias, DType::kF32, {hidden.dim(1)});
  const int num_vectors = num_fours("add_with_bias", hidden.dim(1));
  launch(add_rows, row_per_block(hidden.dim(0), num_vectors), stream, x.data<float>(), bias.data<float>(), num_vectors,
         hidden.data<float>());
}

void add_bias(const Tensor& bias, Tensor& x, Stream& stream) {
  check_rank("add_bias", x, 2);
  check_operand("add_bias", x, DType::kF32, x.shape());
  check_operand("add_bias", bias, DType::kF32, {x.dim(1)});
  const int num_vectors = num_fours("add_bias", x.dim(1));
  launch(add_rows, row_per_block(x.dim(0), num_vectors), stream, nullptr, bias.data<float>(), num_vectors, x.data<float>());
}

void split_vision_heads(const VisionHeadsInput& input, VisionHeads& heads, Stream& stream) {
  constexpr std::string_view kName = "split_vision_heads";
  check_rank(kName, input.qkv, 2);
  check_rank(kName, heads.q, 3);
  const int64_t patches = input.qkv.dim(0), num_heads = heads.q.dim(1), width = input.qkv.dim(1) / 3;
  const int64_t head_dim = width / num_heads;
  check_operand(kName, input.qkv, DType::kF32, {patches, 3 * num_heads * head_dim});
  check_operand(kName, input.bias, DType::kF32, {3 * width});
  check_operand(kName, input.cos_sin, DType::kF32, {patches, head_dim});
  const Shape padded{patches, num_heads, padded_head_dim(head_dim)};
  for (const Tensor* part : {&heads.q, &heads.k, &heads.v}) check_operand(kName, *part, DType::kBF16, padded);
  const SplitArguments arguments{input.qkv.data<float>(),
                                 input.bias.data<float>(),
                                 input.cos_sin.data<float>(),
                                 bf16_of(heads.q),
                                 bf16_of(heads.k),
                                 bf16_of(heads.v),
                                 static_cast<int>(num_heads),
                                 static_cast<int>(head_dim),
                                 static_cast<int>(padded[2])};
  launch(split_rows, row_per_block(patches, 3 * width / 8), stream, arguments);
}

}  // namespace skipper::cuda

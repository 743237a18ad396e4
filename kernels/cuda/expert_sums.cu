// Every sum is one serial chain in slot or rank order. What takes time are the loads of its terms, so those of several are under
// way together; they go to shared memory, because a compiler that is to keep them all in registers rather waits for each.
#include "kernels/cuda/expert_sums.h"

#include <cuda_pipeline_primitives.h>
#include <glog/logging.h>

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_norm.cuh"
#include "kernels/cuda/row_vectors.cuh"

namespace skipper::cuda {
namespace {

constexpr int64_t kMaxBlocks = 132 * 4;  // about what a GPU holds at once; only times depend on it
constexpr int kTermsInFlight = 8;
constexpr int kMaxStaged = 2;  // fours of each thread whose terms are in flight together

// Some terms of a sum of rows: lane j < kTermsInFlight of every warp holds term j.
struct Terms {
  int32_t row = -1;  // −1: none
  float weight = 0.0f;

  __device__ __forceinline__ int32_t row_of(int j) const { return __shfl_sync(0xffffffffu, row, j); }
  __device__ __forceinline__ float weight_of(int j) const { return __shfl_sync(0xffffffffu, row < 0 ? 0.0f : weight, j); }
};

// The terms of one block of threads between their load and their use; each thread reads what it has itself brought there.
template <typename T, int kStaged>
struct Stage {
  using Word = std::conditional_t<std::is_same_v<T, float>, float4, uint2>;  // four elements

  const T* x;
  int words_per_row;
  Word* words;  // [kTermsInFlight][kStaged][kRowThreads]

  static constexpr size_t kBytes = sizeof(Word) * kTermsInFlight * kStaged * kRowThreads;
  __device__ __forceinline__ Word* place(int j, int v) const {
    return words + (j * kStaged + v) * kRowThreads + static_cast<int>(threadIdx.x);
  }

  // Adds the terms of some columns in their order: of the fours first_word + v · kRowThreads + threadIdx.x. Those beyond the
  // end of the row get its last. Whole warps call it.
  __device__ __forceinline__ void add(const Terms& terms, int first_word, Four (&sums)[kStaged]) const {
#pragma unroll
    for (int j = 0; j < kTermsInFlight; ++j) {
      const int32_t row = terms.row_of(j);
      const Word* const source = reinterpret_cast<const Word*>(x) + int64_t{max(row, 0)} * words_per_row;
#pragma unroll
      for (int v = 0; v < kStaged; ++v) {
        const int word = min(first_word + v * kRowThreads + static_cast<int>(threadIdx.x), words_per_row - 1);
        __pipeline_memcpy_async(place(j, v), source + word, sizeof(Word), row < 0 ? sizeof(Word) : 0);
      }
    }
    __pipeline_commit();
    __pipeline_wait_prior(0);
#pragma unroll
    for (int j = 0; j < kTermsInFlight; ++j) {
      const float weight = terms.weight_of(j);
#pragma unroll
      for (int v = 0; v < kStaged; ++v) add_product(load_four(reinterpret_cast<const T*>(place(j, v)), 0), weight, sums[v]);
    }
  }

 private:
  static __device__ __forceinline__ void add_product(const Four& x, float weight, Four& sum) {
    sum.x = fmaf(weight, x.x, sum.x);
    sum.y = fmaf(weight, x.y, sum.y);
    sum.z = fmaf(weight, x.z, sum.z);
    sum.w = fmaf(weight, x.w, sum.w);
  }
};

// A sum that has travelled in BF16 and was added to 0, which makes +0 of −0.
__device__ __forceinline__ float after_travel(float value) {
  return __fadd_rn(__bfloat162float(__float2bfloat16_rn(value)), 0.0f);
}

struct PairSumArguments {
  const int32_t* row_of_pair;
  const float* weights;
  const int32_t* num_rows;
  int64_t max_rows;
  int64_t capacity;
  int top_k;
  int words_per_row;  // of four elements
  bool travels_in_bf16;

  __device__ __forceinline__ Terms terms(int64_t row, int first) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, j = first + lane;
    if (lane >= kTermsInFlight || j >= top_k) return {};
    return {row_of_pair[row * top_k + j], weights[row * top_k + j]};
  }
  __device__ __forceinline__ Four rounded(const Four& sum) const {
    if (!travels_in_bf16) return sum;
    return {after_travel(sum.x), after_travel(sum.y), after_travel(sum.z), after_travel(sum.w)};
  }
};

// Σ over groups of terms for the fours of one row, in steps of what is staged. store(sum, word) takes what exists.
template <typename T, typename TermsOf, typename Store>
__device__ __forceinline__ void sum_row(const Stage<T, kMaxStaged>& stage, int num_terms, const TermsOf& terms_of,
                                        const Store& store) {
  for (int first_word = 0; first_word < stage.words_per_row; first_word += kMaxStaged * kRowThreads) {
    Four sums[kMaxStaged];
    for (int first = 0; first < num_terms; first += kTermsInFlight) stage.add(terms_of(first), first_word, sums);
#pragma unroll
    for (int v = 0; v < kMaxStaged; ++v) {
      const int word = first_word + v * kRowThreads + static_cast<int>(threadIdx.x);
      if (word < stage.words_per_row) store(sums[v], word);
    }
  }
}

template <typename Y, typename Out>
__global__ void __launch_bounds__(kRowThreads) sum_pairs(PairSumArguments a, const Y* y, Out* out) {
  extern __shared__ float4 staged[];
  const Stage<Y, kMaxStaged> stage{y, a.words_per_row, reinterpret_cast<typename Stage<Y, kMaxStaged>::Word*>(staged)};
  allow_next_kernel();
  wait_for_earlier_kernels();
  for (int64_t row = blockIdx.x; row < a.max_rows; row += gridDim.x) {
    const int64_t source = row / a.capacity;
    if (row - source * a.capacity >= a.num_rows[source]) continue;
    sum_row(stage, a.top_k, [&](int first) { return a.terms(row, first); },
            [&](const Four& sum, int word) { store_four(a.rounded(sum), out + row * a.words_per_row * 4, word); });
  }
}

// Sum, residual stream and norm of one row, which never leaves the registers between them.
template <int kVectors, typename Y>
__global__ void __launch_bounds__(kRowThreads) add_sums_and_norm(PairSumArguments a, const Y* y, NormArguments norm) {
  constexpr int kStaged = kVectors < kMaxStaged ? kVectors : kMaxStaged;
  extern __shared__ float4 staged[];
  __shared__ float partial[kRowThreads / 32];
  const Stage<Y, kStaged> stage{y, a.words_per_row, reinterpret_cast<typename Stage<Y, kStaged>::Word*>(staged)};
  Four weight[kVectors], x[kVectors];
  const int64_t row = blockIdx.x, first_element = row * 4 * norm.num_vectors;
  norm.prefetch_row(first_element, static_cast<int>(threadIdx.x));
  if (threadIdx.x == 0) prefetch_to_l2(a.row_of_pair + row * a.top_k);
  if (threadIdx.x == 0) prefetch_to_l2(a.weights + row * a.top_k);
  norm.load_weight(weight);
  allow_next_kernel();
  wait_for_earlier_kernels();
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int i = v * kRowThreads + threadIdx.x;
    if (i < norm.num_vectors) x[v] = load_four(norm.x + first_element, i);
  }
#pragma unroll
  for (int first_v = 0; first_v < kVectors; first_v += kStaged) {
    Four sums[kStaged];
    for (int first = 0; first < a.top_k; first += kTermsInFlight) stage.add(a.terms(row, first), first_v * kRowThreads, sums);
#pragma unroll
    for (int v = 0; v < kStaged; ++v) {
      const int i = (first_v + v) * kRowThreads + threadIdx.x;
      if (i < norm.num_vectors) x[first_v + v] = x[first_v + v] + a.rounded(sums[v]);
    }
  }
  store_norm(norm, first_element, x, weight, partial);
}

struct ReturnedArguments {
  const int32_t* row_slot;
  int64_t num_tokens;
  int64_t capacity;
  int world_size;
  int words_per_row;
};

// Weights of 1: fma(1, x, sum) is x + sum.
template <typename T>
__global__ void __launch_bounds__(kRowThreads) sum_returned(ReturnedArguments a, const T* returned, float* out) {
  extern __shared__ float4 staged[];
  const Stage<T, kMaxStaged> stage{returned, a.words_per_row, reinterpret_cast<typename Stage<T, kMaxStaged>::Word*>(staged)};
  const int lane = static_cast<int>(threadIdx.x) % 32;
  allow_next_kernel();
  wait_for_earlier_kernels();
  for (int64_t token = blockIdx.x; token < a.num_tokens; token += gridDim.x) {
    const auto terms_of = [&](int first) {
      const int rank = first + lane;
      const int32_t slot = lane < kTermsInFlight && rank < a.world_size ? a.row_slot[token * a.world_size + rank] : -1;
      return Terms{slot < 0 ? -1 : static_cast<int32_t>(rank * a.capacity) + slot, 1.0f};
    };
    sum_row(stage, a.world_size, terms_of,
            [&](const Four& sum, int word) { store_four(sum, out + token * a.words_per_row * 4, word); });
  }
}

// --- Launches -----------------------------------------------------------------------------------------------------------------

// Blocks of kRowThreads that stage rows of T.
template <typename T, int kStaged, typename... Parameters, typename... Arguments>
void launch_staged(void (*kernel)(Parameters...), int64_t num_blocks, Stream& stream, const Arguments&... arguments) {
  constexpr size_t kBytes = Stage<T, kStaged>::kBytes;
  if (kBytes > 48 * 1024) {
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes)));
  }
  launch(kernel, {dim3(static_cast<unsigned>(num_blocks)), dim3(kRowThreads), kBytes}, stream, arguments...);
}

int words_of_four(std::string_view kernel, const Tensor& rows) {
  CHECK_EQ(rows.dim(1) % 4, 0) << kernel << ": rows of whole fours";
  return static_cast<int>(rows.dim(1) / 4);
}

PairSumArguments check_terms(const PairTerms& terms) {
  constexpr std::string_view kName = "weighted_pair_sums";
  const ArrivedRows& arrived = terms.arrived;
  check_rank(kName, terms.y, 2);
  check_rank(kName, arrived.slot_ids, 2);
  const int64_t num_slots = arrived.num_rows.num_elements() * arrived.capacity, top_k = arrived.slot_ids.dim(1);
  check_operand(kName, terms.row_of_pair, DType::kI32, {num_slots, top_k});
  check_operand(kName, terms.weights, DType::kF32, {num_slots, top_k});
  check_operand(kName, terms.y, terms.y.dtype(), terms.y.shape());
  CHECK(terms.y.dtype() == DType::kF32 || terms.y.dtype() == DType::kBF16) << name_of(terms.y.dtype());
  CHECK(terms.travels_as == DType::kF32 || terms.travels_as == DType::kBF16) << name_of(terms.travels_as);
  return {.row_of_pair = terms.row_of_pair.data<int32_t>(),
          .weights = terms.weights.data<float>(),
          .num_rows = arrived.num_rows.data<int32_t>(),
          .max_rows = num_slots,
          .capacity = arrived.capacity,
          .top_k = static_cast<int>(top_k),
          .words_per_row = words_of_four(kName, terms.y),
          .travels_in_bf16 = terms.travels_as == DType::kBF16};
}

// Calls launch_with(y) with a pointer of its type.
template <typename LaunchWith>
void with_typed(const Tensor& y, const LaunchWith& launch_with) {
  if (y.dtype() == DType::kF32) return launch_with(y.data<float>());
  launch_with(reinterpret_cast<const __nv_bfloat16*>(y.bytes()));
}

}  // namespace

void weighted_pair_sums(const PairTerms& terms, Tensor& out, Stream& stream) {
  const PairSumArguments arguments = check_terms(terms);
  check_operand("weighted_pair_sums", out, out.dtype(), {arguments.max_rows, terms.y.dim(1)});
  CHECK(out.dtype() == DType::kF32 || out.dtype() == DType::kBF16) << name_of(out.dtype());
  if (out.num_elements() == 0) return;
  CHECK_GT(terms.y.dim(0), 0) << "weighted_pair_sums: no rows to load in vain";
  const int64_t num_blocks = std::min(arguments.max_rows, kMaxBlocks);
  with_typed(terms.y, [&]<typename Y>(const Y* y) {
    if (out.dtype() == DType::kF32) {
      return launch_staged<Y, kMaxStaged>(sum_pairs<Y, float>, num_blocks, stream, arguments, y, out.data<float>());
    }
    launch_staged<Y, kMaxStaged>(sum_pairs<Y, __nv_bfloat16>, num_blocks, stream, arguments, y,
                                 reinterpret_cast<__nv_bfloat16*>(out.bytes()));
  });
}

void add_pair_sums_rms_norm(const PairTerms& terms, const NormWeights& weights, Tensor& hidden, NormedRows& out, Stream& stream) {
  const PairSumArguments arguments = check_terms(terms);
  CHECK_EQ(terms.arrived.num_rows.num_elements(), 1) << "add_pair_sums_rms_norm: rows of other ranks";
  check_operand("add_pair_sums_rms_norm", hidden, DType::kF32, {arguments.max_rows, terms.y.dim(1)});
  NormArguments norm = check_norm(hidden, weights, out);
  norm.sum = hidden.data<float>();
  if (hidden.num_elements() == 0) return;
  CHECK_GT(terms.y.dim(0), 0) << "add_pair_sums_rms_norm: no rows to load in vain";
  with_vectors_per_thread(norm.num_vectors, [&](auto vectors) {
    with_typed(terms.y, [&]<typename Y>(const Y* y) {
      constexpr int kVectors = decltype(vectors)::value;
      launch_staged<Y, std::min(kVectors, kMaxStaged)>(add_sums_and_norm<kVectors, Y>, hidden.dim(0), stream, arguments, y, norm);
    });
  });
}

void add_returned(const Tensor& returned, const Tensor& row_slot, int64_t capacity, Tensor& out, Stream& stream) {
  check_rank("add_returned", row_slot, 2);
  check_rank("add_returned", out, 2);
  const int64_t num_tokens = row_slot.dim(0), world = row_slot.dim(1);
  check_operand("add_returned", returned, returned.dtype(), {world * capacity, out.dim(1)});
  CHECK(returned.dtype() == DType::kF32 || returned.dtype() == DType::kBF16) << name_of(returned.dtype());
  check_operand("add_returned", row_slot, DType::kI32, {num_tokens, world});
  check_operand("add_returned", out, DType::kF32, {num_tokens, out.dim(1)});
  if (out.num_elements() == 0) return;
  const ReturnedArguments arguments{.row_slot = row_slot.data<int32_t>(),
                                    .num_tokens = num_tokens,
                                    .capacity = capacity,
                                    .world_size = static_cast<int>(world),
                                    .words_per_row = words_of_four("add_returned", out)};
  CHECK_LE(world * capacity, int64_t{1} << 30) << "add_returned";
  with_typed(returned, [&]<typename T>(const T* rows) {
    launch_staged<T, kMaxStaged>(sum_returned<T>, std::min(num_tokens, kMaxBlocks), stream, arguments, rows, out.data<float>());
  });
}

}  // namespace skipper::cuda

// Both kernels read or write page-locked memory in place: only the rows that there are cross the bus, and the host need not know
// their number before.
#include "kernels/cuda/host_rows.h"

#include <glog/logging.h>

#include <algorithm>

#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_vectors.cuh"

namespace skipper::cuda {
namespace {

constexpr int kMostExperts = 1024;
constexpr int64_t kMostBlocks = 132 * 2;

// Where the rows of the host's experts are among the sorted ones.
struct RowPlaces {
  const int32_t* row_offsets;  // [E + 1]
  const int32_t* experts;      // [N]
  int num_experts;             // N

  __device__ __forceinline__ int begin_of(int i) const { return row_offsets[experts[i]]; }
  __device__ __forceinline__ int rows_of(int i) const { return row_offsets[experts[i] + 1] - row_offsets[experts[i]]; }

  // first[i] = rows of the experts before i, for i <= N; by the block's first warp. A lane takes consecutive experts.
  __device__ void number(int* first) const {
    const int lane = static_cast<int>(threadIdx.x);
    const int per_lane = (num_experts + 31) / 32;
    const int begin = min(lane * per_lane, num_experts), end = min(begin + per_lane, num_experts);
    int sum = 0;
    for (int i = begin; i < end; ++i) sum += rows_of(i);
    int inclusive = sum;
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, inclusive, step);
      if (lane >= step) inclusive += other;
    }
    int before = inclusive - sum;
    for (int i = begin; i < end; ++i) {
      first[i] = before;
      before += rows_of(i);
    }
    if (lane == 31) first[num_experts] = inclusive;
  }
  // Among the sorted rows, of row number `row` < first[N].
  __device__ int place_of(int row, const int* first) const {
    int low = 0, high = num_experts;  // first[low] <= row < first[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (first[middle] <= row ? low : high) = middle;
    }
    return begin_of(low) + row - first[low];
  }
};

__device__ __forceinline__ void number_rows(const RowPlaces& places, int* first) {
  if (threadIdx.x < 32) places.number(first);
  __syncthreads();
}

struct CollectArguments {
  RowPlaces places;
  const uint4* sorted_rows;
  int32_t* offsets;
  uint4* rows;
  int first_row;
  int capacity;
  int vectors_per_row;  // of eight elements
};

__global__ void __launch_bounds__(kRowThreads) collect_kernel(const CollectArguments a) {
  __shared__ int first[kMostExperts + 1];
  wait_for_earlier_kernels();
  allow_next_kernel();
  number_rows(a.places, first);
  const int num_experts = a.places.num_experts;
  if (blockIdx.x == 0) {
    for (int i = static_cast<int>(threadIdx.x); i <= num_experts; i += static_cast<int>(blockDim.x)) a.offsets[i] = first[i];
  }
  const int num_rows = min(first[num_experts] - a.first_row, a.capacity);
  for (int row = static_cast<int>(blockIdx.x); row < num_rows; row += static_cast<int>(gridDim.x)) {
    const uint4* source = a.sorted_rows + int64_t{a.places.place_of(a.first_row + row, first)} * a.vectors_per_row;
    uint4* target = a.rows + int64_t{row} * a.vectors_per_row;
    for (int v = static_cast<int>(threadIdx.x); v < a.vectors_per_row; v += static_cast<int>(blockDim.x)) target[v] = source[v];
  }
}

template <typename T>
struct ReturnArguments {
  RowPlaces places;
  const float* results;
  T* sorted_results;
  int first_row;
  int num_rows;
  int width;
};

template <typename T>
__global__ void __launch_bounds__(kRowThreads) return_kernel(const ReturnArguments<T> a) {
  __shared__ int first[kMostExperts + 1];
  wait_for_earlier_kernels();
  allow_next_kernel();
  number_rows(a.places, first);
  for (int row = static_cast<int>(blockIdx.x); row < a.num_rows; row += static_cast<int>(gridDim.x)) {
    const float* source = a.results + int64_t{row} * a.width;
    T* target = a.sorted_results + int64_t{a.places.place_of(a.first_row + row, first)} * a.width;
    for (int v = static_cast<int>(threadIdx.x); v < a.width / 4; v += static_cast<int>(blockDim.x)) {
      // The host has written them since the last kernel here: no cache may answer.
      const float4 four = __ldcv(reinterpret_cast<const float4*>(source) + v);
      store_four({four.x, four.y, four.z, four.w}, target, v);
    }
  }
}

RowPlaces places_of(const HostExpertRows& rows) {
  const int64_t num_experts = rows.experts.num_elements();
  CHECK(0 < num_experts && num_experts <= kMostExperts);
  CHECK(rows.row_offsets.on_gpu() && rows.experts.on_gpu());
  return {rows.row_offsets.data<int32_t>(), rows.experts.data<int32_t>(), static_cast<int>(num_experts)};
}

LaunchShape blocks_for(int64_t num_rows) {
  return {.blocks = dim3(static_cast<unsigned>(std::clamp<int64_t>(num_rows, 1, kMostBlocks))), .threads = dim3(kRowThreads)};
}

template <typename T>
void launch_return(const HostExpertRows& to, const Tensor& results, int64_t first, Tensor& sorted_results, Stream& stream) {
  const ReturnArguments<T> arguments{.places = places_of(to),
                                     .results = results.data<float>(),
                                     .sorted_results = reinterpret_cast<T*>(sorted_results.bytes()),
                                     .first_row = static_cast<int>(first),
                                     .num_rows = static_cast<int>(results.dim(0)),
                                     .width = static_cast<int>(results.dim(1))};
  launch(return_kernel<T>, blocks_for(results.dim(0)), stream, arguments);
}

}  // namespace

void collect_host_rows(const HostExpertRows& from, const Tensor& sorted_rows, int64_t first, const CollectedRows& to,
                       Stream& stream) {
  const RowPlaces places = places_of(from);
  CHECK_EQ(to.offsets.num_elements(), from.experts.num_elements() + 1);
  CHECK(sorted_rows.dtype() == DType::kBF16 && to.rows.dtype() == DType::kBF16 && to.rows.dim(1) == sorted_rows.dim(1));
  CHECK_EQ(sorted_rows.dim(1) % 8, 0);
  const CollectArguments arguments{.places = places,
                                   .sorted_rows = reinterpret_cast<const uint4*>(sorted_rows.bytes()),
                                   .offsets = to.offsets.data<int32_t>(),
                                   .rows = reinterpret_cast<uint4*>(to.rows.bytes()),
                                   .first_row = static_cast<int>(first),
                                   .capacity = static_cast<int>(to.rows.dim(0)),
                                   .vectors_per_row = static_cast<int>(sorted_rows.dim(1) / 8)};
  // The offsets are written even where there is no row.
  launch(collect_kernel, blocks_for(std::min(to.rows.dim(0), sorted_rows.dim(0))), stream, arguments);
}

void return_host_rows(const HostExpertRows& to, const Tensor& results, int64_t first, Tensor& sorted_results, Stream& stream) {
  CHECK(results.dim(1) == sorted_results.dim(1) && results.dim(1) % 4 == 0);
  if (results.dim(0) == 0) return;
  if (sorted_results.dtype() == DType::kF32) return launch_return<float>(to, results, first, sorted_results, stream);
  CHECK(sorted_results.dtype() == DType::kBF16);
  launch_return<__nv_bfloat16>(to, results, first, sorted_results, stream);
}

}  // namespace skipper::cuda

// Places are found by counting and never by atomics: every list is in order of arrival, whatever the launch.
//
// Sorting and planning give one block to each expert or rank. Its warps share out the items in runs; every warp counts the items
// of its run that are the block's, a scan turns the counts into first places, and a second pass over the same items, which are in
// the cache by then, writes them.
#include "kernels/cuda/expert_rows.h"

#include <glog/logging.h>

#include <algorithm>

#include "kernels/cuda/gpu_operands.h"
#include "kernels/cuda/launch.cuh"

namespace skipper::cuda {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxBlocks = 132 * 8;  // about what a GPU holds at once; only times depend on it
constexpr int64_t kMaxSources = 256;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

__device__ __forceinline__ int lane_index() { return threadIdx.x % 32; }
__device__ __forceinline__ int warp_index() { return threadIdx.x / 32; }
__device__ __forceinline__ int num_warps() { return blockDim.x / 32; }
__device__ __forceinline__ unsigned lower_lanes() { return (1u << lane_index()) - 1; }

// As many threads as items, so that a small batch waits for few warps.
unsigned threads_for(int64_t num_items) {
  return static_cast<unsigned>(std::clamp<int64_t>(ceil_div(num_items, 32) * 32, 32, kMaxThreads));
}

// The part of `num_items` that is this warp's: whole groups of 32 that follow on those of the warp before.
struct Run {
  int64_t begin, end;

  __device__ explicit Run(int64_t num_items) {
    const int64_t per_warp = (num_items + blockDim.x - 1) / blockDim.x * 32;
    begin = min(num_items, per_warp * warp_index());
    end = min(num_items, begin + per_warp);
  }
};

// Turns counts [num_lists][warps of the block] into the sums of all before them; returns the sum of all, to every thread.
__device__ __forceinline__ int scan_counts(int* counts, int num_lists) {
  __shared__ int total;
  __syncthreads();
  if (warp_index() == 0) {
    int carry = 0;
    for (int list = 0; list < num_lists; ++list) {
      int* const count = counts + list * num_warps() + lane_index();
      const bool exists = lane_index() < num_warps();
      const int own = exists ? *count : 0;
      int sum = own;
#pragma unroll
      for (int distance = 1; distance < 32; distance *= 2) {
        const int before = __shfl_up_sync(kAllLanes, sum, distance);
        sum += lane_index() >= distance ? before : 0;
      }
      if (exists) *count = carry + sum - own;
      carry += __shfl_sync(kAllLanes, sum, 31);
    }
    if (lane_index() == 0) total = carry;
  }
  __syncthreads();
  return total;
}

// --- Copies of rows -----------------------------------------------------------------------------------------------------------

// One row of `num_words` by one warp, some words of each lane in flight at once.
__device__ __forceinline__ void copy_row(const uint4* __restrict__ from, uint4* __restrict__ to, int num_words) {
  constexpr int kInFlight = 8;
  for (int first = lane_index(); first < num_words; first += 32 * kInFlight) {
    uint4 words[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (first + 32 * i < num_words) words[i] = from[first + 32 * i];
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (first + 32 * i < num_words) to[first + 32 * i] = words[i];
    }
  }
}

struct RowCopies {
  const uint4* from = nullptr;
  uint4* to = nullptr;
  int words_per_row = 0;
  int64_t max_rows = 0;  // of `to`
  int64_t num_source_rows = 0;

  __device__ __forceinline__ void copy(int64_t source, int64_t row) const {
    if (source < 0 || source >= num_source_rows) return;
    copy_row(from + source * words_per_row, to + row * words_per_row, words_per_row);
  }
};

__device__ __forceinline__ int64_t first_row_of_warp() { return int64_t{blockIdx.x} * num_warps() + warp_index(); }
__device__ __forceinline__ int64_t num_warps_of_grid() { return int64_t{gridDim.x} * num_warps(); }

__global__ void __launch_bounds__(256) gather_listed(RowCopies copies, const int32_t* row_index, const int32_t* num_sorted) {
  allow_next_kernel();
  wait_for_earlier_kernels();
  const int64_t num_rows = min(int64_t{*num_sorted}, copies.max_rows);
  for (int64_t row = first_row_of_warp(); row < num_rows; row += num_warps_of_grid()) copies.copy(row_index[row], row);
}

__global__ void __launch_bounds__(256) pack_slots(RowCopies copies, const int32_t* token_of_row, const int32_t* num_rows,
                                                  int64_t capacity) {
  allow_next_kernel();
  wait_for_earlier_kernels();
  for (int64_t row = first_row_of_warp(); row < copies.max_rows; row += num_warps_of_grid()) {
    const int64_t rank = row / capacity;
    if (row - rank * capacity < num_rows[rank]) copies.copy(token_of_row[row], row);
  }
}

// A warp per row, blocks of up to eight warps once all multiprocessors have one, and no more of them than run at once.
LaunchShape warp_per_row(int64_t num_rows) {
  const int64_t warps = std::clamp<int64_t>(num_rows / 128, 1, 8);
  return {dim3(static_cast<unsigned>(std::min(ceil_div(num_rows, warps), kMaxBlocks))), dim3(static_cast<unsigned>(32 * warps))};
}

RowCopies row_copies(const Tensor& from, Tensor& to) {
  CHECK_EQ(from.dim(1) % 8, 0) << "rows of whole 16 bytes";
  return {reinterpret_cast<const uint4*>(from.bytes()), reinterpret_cast<uint4*>(to.bytes()), static_cast<int>(from.dim(1) / 8),
          to.dim(0), from.dim(0)};
}

// --- Sorting by expert --------------------------------------------------------------------------------------------------------

struct SortArguments {
  const int32_t* slot_ids;
  const int32_t* num_rows;
  int32_t* row_offsets;
  int32_t* row_index;
  int32_t* row_of_pair;
  int64_t capacity;
  int64_t max_sorted_rows;
  int num_sources;
  int num_experts;
  int top_k;

  __device__ int64_t num_pairs(int source) const {
    return min(max(int64_t{num_rows[source]}, int64_t{0}), capacity) * top_k;
  }
  __device__ int64_t first_pair(int source) const { return source * capacity * top_k; }
};

constexpr int kPairsPerLane = 4;  // in flight at once

// Calls visit(pair of the source, expert, exists) for the pairs of this warp's run in order, a whole warp at a time.
template <typename Visit>
__device__ __forceinline__ void for_each_pair(const int32_t* ids, int64_t num_pairs, const Visit& visit) {
  const Run run(num_pairs);
  for (int64_t first = run.begin; first < run.end; first += 32 * kPairsPerLane) {
    int32_t experts[kPairsPerLane];
#pragma unroll
    for (int i = 0; i < kPairsPerLane; ++i) {
      const int64_t pair = first + 32 * i + lane_index();
      experts[i] = pair < run.end ? ids[pair] : -1;
    }
#pragma unroll
    for (int i = 0; i < kPairsPerLane; ++i) {
      const int64_t pair = first + 32 * i + lane_index();
      visit(pair, experts[i], pair < run.end);
    }
  }
}

// Block e places the pairs of expert e, and one in num_experts of the pairs that have none. Then it copies the rows of its pairs,
// unless `copies` is empty.
__global__ void __launch_bounds__(kMaxThreads, 1) sort_pairs(SortArguments a, RowCopies copies) {
  extern __shared__ int counts[];  // [source][warp], pairs of this expert
  __shared__ int num_before;       // pairs of experts before it
  const int expert = blockIdx.x;
  if (threadIdx.x == 0) num_before = 0;
  __syncthreads();
  allow_next_kernel();
  wait_for_earlier_kernels();

  int before = 0;
  for (int source = 0; source < a.num_sources; ++source) {
    int own = 0;
    for_each_pair(a.slot_ids + a.first_pair(source), a.num_pairs(source), [&](int64_t, int32_t id, bool) {
      own += __popc(__ballot_sync(kAllLanes, id == expert));
      before += id >= 0 && id < expert ? 1 : 0;
    });
    if (lane_index() == 0) counts[source * num_warps() + warp_index()] = own;
  }
  before = __reduce_add_sync(kAllLanes, before);
  if (lane_index() == 0) atomicAdd(&num_before, before);
  const int num_own = scan_counts(counts, a.num_sources);
  if (threadIdx.x == 0) a.row_offsets[expert] = num_before;
  if (threadIdx.x == 0 && expert == a.num_experts - 1) a.row_offsets[a.num_experts] = num_before + num_own;

  for (int source = 0; source < a.num_sources; ++source) {
    const int64_t first_pair = a.first_pair(source);
    int64_t row = num_before + counts[source * num_warps() + warp_index()];
    for_each_pair(a.slot_ids + first_pair, a.num_pairs(source), [&](int64_t pair, int32_t id, bool exists) {
      const unsigned own = __ballot_sync(kAllLanes, id == expert);
      const int64_t row_of_lane = row + __popc(own & lower_lanes());
      if (id == expert && row_of_lane < a.max_sorted_rows) {
        a.row_index[row_of_lane] = static_cast<int32_t>(first_pair + pair) / a.top_k;
        a.row_of_pair[first_pair + pair] = static_cast<int32_t>(row_of_lane);
      }
      row += __popc(own);
      const bool has_none = static_cast<unsigned>(id) >= static_cast<unsigned>(a.num_experts);
      if (exists && has_none && static_cast<int>(pair / 32) % a.num_experts == expert) a.row_of_pair[first_pair + pair] = -1;
    });
  }
  if (copies.from == nullptr) return;
  __syncthreads();
  const int64_t end = min(int64_t{num_before} + num_own, copies.max_rows);
  for (int64_t row = num_before + warp_index(); row < end; row += num_warps()) copies.copy(a.row_index[row], row);
}

// sort_pairs() for one source with no more than a pair per thread: ids are read once and counted between two barriers.
__global__ void __launch_bounds__(kMaxThreads, 1) sort_few_pairs(SortArguments a, RowCopies copies) {
  __shared__ int own_counts[kMaxThreads / 32], counts_before[kMaxThreads / 32];  // by warp
  __shared__ int32_t own_rows[kMaxThreads];
  const int expert = static_cast<int>(blockIdx.x), pair = static_cast<int>(threadIdx.x);
  allow_next_kernel();
  if (expert == 0 && pair == 0) prefetch_to_l2(a.num_rows);
  wait_for_earlier_kernels();
  const int32_t id_in_memory = pair < a.capacity * a.top_k ? a.slot_ids[pair] : -1;  // beside the load of the count
  const bool exists = pair < a.num_pairs(0);
  const int32_t id = exists ? id_in_memory : -1;
  const unsigned own = __ballot_sync(kAllLanes, id == expert);
  const unsigned before = __ballot_sync(kAllLanes, id >= 0 && id < expert);
  if (lane_index() == 0) own_counts[warp_index()] = __popc(own);
  if (lane_index() == 0) counts_before[warp_index()] = __popc(before);
  __syncthreads();

  const bool is_warp = lane_index() < num_warps();
  const int own_count = is_warp ? own_counts[lane_index()] : 0;
  const int num_before = __reduce_add_sync(kAllLanes, is_warp ? counts_before[lane_index()] : 0);
  const int num_own_before = __reduce_add_sync(kAllLanes, lane_index() < warp_index() ? own_count : 0);
  const int num_own = __reduce_add_sync(kAllLanes, own_count);
  if (id == expert) {
    const int index = num_own_before + __popc(own & lower_lanes()), row = num_before + index;
    own_rows[index] = pair / a.top_k;
    if (row < a.max_sorted_rows) {
      a.row_index[row] = pair / a.top_k;
      a.row_of_pair[pair] = row;
    }
  }
  const bool has_none = static_cast<unsigned>(id) >= static_cast<unsigned>(a.num_experts);
  if (exists && has_none && pair / 32 % a.num_experts == expert) a.row_of_pair[pair] = -1;
  if (threadIdx.x == 0) a.row_offsets[expert] = num_before;
  if (threadIdx.x == 0 && expert == a.num_experts - 1) a.row_offsets[a.num_experts] = num_before + num_own;
  if (copies.from == nullptr) return;
  __syncthreads();
  const int64_t end = min(int64_t{num_before} + num_own, copies.max_rows);
  for (int64_t row = num_before + warp_index(); row < end; row += num_warps()) copies.copy(own_rows[row - num_before], row);
}

// --- Planning what goes out ---------------------------------------------------------------------------------------------------

struct PlanArguments {
  const int32_t* expert_ids;
  const float* expert_weights;
  const int32_t* rank_of_expert;
  const int32_t* slot_of_expert;
  int32_t* num_rows;
  int32_t* row_slot;
  int32_t* token_of_row;
  int32_t* slot_ids;
  float* weights;
  int32_t* overflow;
  int64_t num_tokens;
  int64_t capacity;
  int world_size;
  int top_k;

  __device__ __forceinline__ bool has_pair_at(int64_t token, int rank) const {
    bool found = false;
    for (int j = 0; j < top_k; ++j) {
      const int32_t id = expert_ids[token * top_k + j];
      found = found || (id >= 0 && rank_of_expert[id] == rank);
    }
    return found;
  }
  // The token's pairs at the rank in their slots, −1 in the others.
  __device__ __forceinline__ void write_row(int64_t token, int rank, int64_t row) const {
    token_of_row[row] = static_cast<int32_t>(token);
    for (int j = 0; j < top_k; ++j) {
      const int32_t id = expert_ids[token * top_k + j];
      const bool is_there = id >= 0 && rank_of_expert[id] == rank;
      slot_ids[row * top_k + j] = is_there ? slot_of_expert[id] : -1;
      weights[row * top_k + j] = is_there ? expert_weights[token * top_k + j] : 0.0f;
    }
  }
};

// Block d lists the tokens that go to rank d.
__global__ void __launch_bounds__(kMaxThreads, 1) plan_rank(PlanArguments a) {
  __shared__ int counts[kMaxThreads / 32];
  const int rank = blockIdx.x;
  allow_next_kernel();
  wait_for_earlier_kernels();
  const Run run(a.num_tokens);
  int own = 0;
  for (int64_t first = run.begin; first < run.end; first += 32) {
    const int64_t token = first + lane_index();
    own += __popc(__ballot_sync(kAllLanes, token < run.end && a.has_pair_at(token, rank)));
  }
  if (lane_index() == 0) counts[warp_index()] = own;
  const int total = scan_counts(counts, 1);
  if (threadIdx.x == 0) a.num_rows[rank] = total;
  if (threadIdx.x == 0 && total > a.capacity) *a.overflow = 1;

  int64_t slot = counts[warp_index()];
  for (int64_t first = run.begin; first < run.end; first += 32) {
    const int64_t token = first + lane_index();
    const bool goes = token < run.end && a.has_pair_at(token, rank);
    const unsigned going = __ballot_sync(kAllLanes, goes);
    const int64_t slot_of_lane = slot + __popc(going & lower_lanes());
    const bool has_room = goes && slot_of_lane < a.capacity;
    if (has_room) a.write_row(token, rank, rank * a.capacity + slot_of_lane);
    if (token < run.end) a.row_slot[token * a.world_size + rank] = has_room ? static_cast<int32_t>(slot_of_lane) : -1;
    slot += __popc(going);
  }
}

// Checks the operands, too.
void launch_sort(const ArrivedRows& arrived, const SortedExperts& sorted, const RowCopies& copies, Stream& stream) {
  check_rank("sort_by_expert", arrived.slot_ids, 2);
  const int64_t num_sources = arrived.num_rows.num_elements(), top_k = arrived.slot_ids.dim(1);
  const int64_t num_slots = num_sources * arrived.capacity, num_experts = sorted.row_offsets.num_elements() - 1;
  check_operand("sort_by_expert", arrived.slot_ids, DType::kI32, {num_slots, top_k});
  check_operand("sort_by_expert", arrived.num_rows, DType::kI32, {num_sources});
  check_operand("sort_by_expert", sorted.row_offsets, DType::kI32, {num_experts + 1});
  check_operand("sort_by_expert", sorted.row_index, DType::kI32, {sorted.row_index.num_elements()});
  check_operand("sort_by_expert", sorted.row_of_pair, DType::kI32, {num_slots, top_k});
  CHECK(num_sources > 0 && num_sources <= kMaxSources) << num_sources << " sources";
  CHECK_GT(num_experts, 0);
  CHECK_LE(num_slots * top_k, int64_t{1} << 30);
  const SortArguments arguments{.slot_ids = arrived.slot_ids.data<int32_t>(),
                                .num_rows = arrived.num_rows.data<int32_t>(),
                                .row_offsets = sorted.row_offsets.data<int32_t>(),
                                .row_index = sorted.row_index.data<int32_t>(),
                                .row_of_pair = sorted.row_of_pair.data<int32_t>(),
                                .capacity = arrived.capacity,
                                .max_sorted_rows = sorted.row_index.num_elements(),
                                .num_sources = static_cast<int>(num_sources),
                                .num_experts = static_cast<int>(num_experts),
                                .top_k = static_cast<int>(top_k)};
  const unsigned threads = threads_for(arrived.capacity * top_k);
  if (num_sources == 1 && arrived.capacity * top_k <= kMaxThreads) {
    return launch(sort_few_pairs, {dim3(static_cast<unsigned>(num_experts)), dim3(threads)}, stream, arguments, copies);
  }
  const size_t shared_bytes = static_cast<size_t>(num_sources) * threads / 32 * sizeof(int);
  launch(sort_pairs, {dim3(static_cast<unsigned>(num_experts)), dim3(threads), shared_bytes}, stream, arguments,
         copies);
}

void check_gather(const Tensor& rows, const SortedExperts& sorted, const Tensor& y) {
  check_rank("gather_sorted", rows, 2);
  check_operand("gather_sorted", rows, DType::kBF16, rows.shape());
  check_operand("gather_sorted", y, DType::kBF16, {sorted.row_index.num_elements(), rows.dim(1)});
}

}  // namespace

void sort_by_expert(const ArrivedRows& arrived, const SortedExperts& sorted, Stream& stream) {
  launch_sort(arrived, sorted, {}, stream);
}

void sort_and_gather(const ArrivedRows& arrived, const SortedExperts& sorted, Tensor& y, Stream& stream) {
  constexpr int64_t kFewPairs = 2048;  // an expert's rows are few enough for one block
  if (arrived.slot_ids.num_elements() > kFewPairs) {
    launch_sort(arrived, sorted, {}, stream);
    return gather_sorted(arrived.rows, sorted, y, stream);
  }
  check_gather(arrived.rows, sorted, y);
  launch_sort(arrived, sorted, row_copies(arrived.rows, y), stream);
}

void gather_sorted(const Tensor& rows, const SortedExperts& sorted, Tensor& y, Stream& stream) {
  check_gather(rows, sorted, y);
  if (y.num_elements() == 0) return;
  const int64_t num_experts = sorted.row_offsets.num_elements() - 1;
  launch(gather_listed, warp_per_row(y.dim(0)), stream, row_copies(rows, y), sorted.row_index.data<int32_t>(),
         sorted.row_offsets.data<int32_t>() + num_experts);
}

void plan_outgoing(const OutgoingInput& input, const OutgoingOutput& output, Stream& stream) {
  check_rank("plan_outgoing", input.expert_ids, 2);
  const int64_t num_tokens = input.expert_ids.dim(0), top_k = input.expert_ids.dim(1), world = input.world_size;
  const int64_t num_experts = input.rank_of_expert.num_elements();
  check_operand("plan_outgoing", input.expert_ids, DType::kI32, {num_tokens, top_k});
  check_operand("plan_outgoing", input.expert_weights, DType::kF32, {num_tokens, top_k});
  check_operand("plan_outgoing", input.rank_of_expert, DType::kI32, {num_experts});
  check_operand("plan_outgoing", input.slot_of_expert, DType::kI32, {num_experts});
  check_operand("plan_outgoing", output.num_rows, DType::kI32, {world});
  check_operand("plan_outgoing", output.row_slot, DType::kI32, {num_tokens, world});
  check_operand("plan_outgoing", output.token_of_row, DType::kI32, {world * input.capacity});
  check_operand("plan_outgoing", output.slot_ids, DType::kI32, {world * input.capacity, top_k});
  check_operand("plan_outgoing", output.weights, DType::kF32, {world * input.capacity, top_k});
  check_operand("plan_outgoing", output.overflow, DType::kI32, {1});
  const PlanArguments arguments{.expert_ids = input.expert_ids.data<int32_t>(),
                                .expert_weights = input.expert_weights.data<float>(),
                                .rank_of_expert = input.rank_of_expert.data<int32_t>(),
                                .slot_of_expert = input.slot_of_expert.data<int32_t>(),
                                .num_rows = output.num_rows.data<int32_t>(),
                                .row_slot = output.row_slot.data<int32_t>(),
                                .token_of_row = output.token_of_row.data<int32_t>(),
                                .slot_ids = output.slot_ids.data<int32_t>(),
                                .weights = output.weights.data<float>(),
                                .overflow = output.overflow.data<int32_t>(),
                                .num_tokens = num_tokens,
                                .capacity = input.capacity,
                                .world_size = static_cast<int>(world),
                                .top_k = static_cast<int>(top_k)};
  launch(plan_rank, {dim3(static_cast<unsigned>(world)), dim3(threads_for(num_tokens))}, stream, arguments);
}

void pack_outgoing(const Tensor& x, const OutgoingOutput& plan, int64_t capacity, Tensor& send, Stream& stream) {
  check_rank("pack_outgoing", x, 2);
  check_operand("pack_outgoing", x, DType::kBF16, x.shape());
  check_operand("pack_outgoing", plan.token_of_row, DType::kI32, {plan.num_rows.num_elements() * capacity});
  check_operand("pack_outgoing", send, DType::kBF16, {plan.num_rows.num_elements() * capacity, x.dim(1)});
  if (send.num_elements() == 0 || x.num_elements() == 0) return;
  launch(pack_slots, warp_per_row(send.dim(0)), stream, row_copies(x, send), plan.token_of_row.data<int32_t>(),
         plan.num_rows.data<int32_t>(), capacity);
}

}  // namespace skipper::cuda

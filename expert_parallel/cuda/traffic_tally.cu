#include <algorithm>

#include "expert_parallel/cuda/traffic_tally.h"
#include "kernels/cuda/launch.cuh"

namespace skipper::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kNumHopsOnGpu = 3;
constexpr int kNumClassesOnGpu = 3;
constexpr int kNumRowTallies = static_cast<int>(kWireBytesAt);

struct TallyArguments {
  const int32_t* routed_ids;
  const int32_t* expert_ids;
  const uint8_t* token_class;
  const int32_t* rank_of_expert;
  const int32_t* hop_of_rank;
  const int32_t* num_sent;
  int64_t num_rows;
  int world_size;
  int top_k;
  WireBytes wire_bytes;
};

// Calls visit(rank) once for each rank that owns one of the experts.
template <typename Visit>
__device__ void for_each_rank(const int32_t* ids, const TallyArguments& a, const Visit& visit) {
  for (int j = 0; j < a.top_k; ++j) {
    if (ids[j] < 0) continue;
    const int32_t rank = a.rank_of_expert[ids[j]];
    bool is_first = true;
    for (int earlier = 0; earlier < j; ++earlier) {
      is_first = is_first && (ids[earlier] < 0 || a.rank_of_expert[ids[earlier]] != rank);
    }
    if (is_first) visit(rank);
  }
}

// One thread per row; blocks add up in shared memory first.
__global__ void tally_traffic_kernel(TallyArguments a, unsigned long long* tallies, int32_t* most_rows) {
  __shared__ int sums[kNumRowTallies];
  if (threadIdx.x < kNumRowTallies) sums[threadIdx.x] = 0;
  __syncthreads();
  wait_for_earlier_kernels();
  allow_next_kernel();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int token_class = row < a.num_rows ? a.token_class[row] : kNumClassesOnGpu;
  if (token_class < kNumClassesOnGpu) {
    const auto tally_of = [&](int64_t first, int32_t rank) {
      return sums + first + a.hop_of_rank[rank] * kNumClassesOnGpu + token_class;
    };
    for_each_rank(a.expert_ids + row * a.top_k, a, [&](int32_t rank) {
      atomicAdd(tally_of(kSentRowsAt, rank), 1);
      atomicAdd(tally_of(kSavedRowsAt, rank), -1);
    });
    for_each_rank(a.routed_ids + row * a.top_k, a, [&](int32_t rank) { atomicAdd(tally_of(kSavedRowsAt, rank), 1); });
  }
  __syncthreads();
  // Sums may be negative for a moment only as parts: two's complement adds up all the same.
  const int i = threadIdx.x;
  if (i < kNumRowTallies && sums[i] != 0) atomicAdd(tallies + i, static_cast<unsigned long long>(int64_t{sums[i]}));
  if (blockIdx.x > 0) return;
  for (int rank = i; rank < a.world_size; rank += kThreads) atomicMax(most_rows, a.num_sent[rank]);
  if (i < 2 * kNumHopsOnGpu) {
    const int64_t bytes = a.wire_bytes.by_direction_and_hop[i / kNumHopsOnGpu][i % kNumHopsOnGpu];
    atomicAdd(tallies + kWireBytesAt + i, static_cast<unsigned long long>(bytes));
  }
}

}  // namespace

void tally_traffic(const TrafficTallyInput& input, const WireBytes& wire_bytes, const TrafficTallyOutput& output,
                   Stream& stream) {
  CHECK_EQ(output.tallies.num_elements(), kNumTrafficTallies);
  CHECK_EQ(output.most_rows.num_elements(), 1);
  CHECK_EQ(input.num_sent.num_elements(), input.hop_of_rank.num_elements());
  CHECK(input.routed_ids.shape() == input.expert_ids.shape());
  const int64_t num_rows = input.expert_ids.dim(0);
  CHECK_EQ(input.token_class.num_elements(), num_rows);
  const TallyArguments arguments{.routed_ids = input.routed_ids.data<int32_t>(),
                                 .expert_ids = input.expert_ids.data<int32_t>(),
                                 .token_class = input.token_class.data<uint8_t>(),
                                 .rank_of_expert = input.rank_of_expert.data<int32_t>(),
                                 .hop_of_rank = input.hop_of_rank.data<int32_t>(),
                                 .num_sent = input.num_sent.data<int32_t>(),
                                 .num_rows = num_rows,
                                 .world_size = static_cast<int>(input.num_sent.num_elements()),
                                 .top_k = static_cast<int>(input.expert_ids.dim(1)),
                                 .wire_bytes = wire_bytes};
  const int64_t num_blocks = std::max<int64_t>(1, (num_rows + kThreads - 1) / kThreads);  // one for the wire bytes
  launch(tally_traffic_kernel, {.blocks = dim3(static_cast<unsigned>(num_blocks)), .threads = dim3(kThreads)}, stream,
         arguments, reinterpret_cast<unsigned long long*>(output.tallies.data<int64_t>()), output.most_rows.data<int32_t>());
}

}  // namespace skipper::cuda

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
  const int32_t* first_stop;  // null: every rank its own
  int64_t num_rows;
  int world_size;
  int top_k;
  WireBytes wire_bytes;
};

// Calls visit(of(rank)) once for each value that it has over the ranks that own one of the experts.
template <typename Of, typename Visit>
__device__ void for_each_different(const int32_t* ids, const TallyArguments& a, const Of& of, const Visit& visit) {
  for (int j = 0; j < a.top_k; ++j) {
    if (ids[j] < 0) continue;
    const int32_t value = of(a.rank_of_expert[ids[j]]);
    bool is_first = true;
    for (int earlier = 0; earlier < j; ++earlier) {
      is_first = is_first && (ids[earlier] < 0 || of(a.rank_of_expert[ids[earlier]]) != value);
    }
    if (is_first) visit(value);
  }
}

constexpr int kNetworkOnGpu = 2;
constexpr int kNodeOnGpu = 1;

// Calls visit(direction, hop) for each time that a row goes out for its experts, or that a sum comes back.
template <typename Visit>
__device__ void for_each_trip(const int32_t* ids, const TallyArguments& a, const Visit& visit) {
  const auto goes_by_node = [&](int32_t rank) { return a.first_stop != nullptr && a.hop_of_rank[rank] == kNetworkOnGpu; };
  for_each_different(ids, a, [](int32_t rank) { return rank; }, [&](int32_t rank) {
    visit(1, a.hop_of_rank[rank]);
    if (!goes_by_node(rank)) visit(0, a.hop_of_rank[rank]);
    if (goes_by_node(rank) && a.first_stop[rank] != rank) visit(0, kNodeOnGpu);
  });
  if (a.first_stop == nullptr) return;
  for_each_different(ids, a, [&](int32_t rank) { return a.first_stop[rank]; }, [&](int32_t stop) {
    if (a.hop_of_rank[stop] == kNetworkOnGpu) visit(0, kNetworkOnGpu);
  });
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
    const auto tally_of = [&](int64_t first, int direction, int hop) {
      return sums + first + (direction * kNumHopsOnGpu + hop) * kNumClassesOnGpu + token_class;
    };
    for_each_trip(a.expert_ids + row * a.top_k, a, [&](int direction, int hop) {
      atomicAdd(tally_of(kSentRowsAt, direction, hop), 1);
      atomicAdd(tally_of(kSavedRowsAt, direction, hop), -1);
    });
    for_each_trip(a.routed_ids + row * a.top_k, a,
                  [&](int direction, int hop) { atomicAdd(tally_of(kSavedRowsAt, direction, hop), 1); });
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
                                 .first_stop = input.first_stop.defined() ? input.first_stop.data<int32_t>() : nullptr,
                                 .num_rows = num_rows,
                                 .world_size = static_cast<int>(input.num_sent.num_elements()),
                                 .top_k = static_cast<int>(input.expert_ids.dim(1)),
                                 .wire_bytes = wire_bytes};
  const int64_t num_blocks = std::max<int64_t>(1, (num_rows + kThreads - 1) / kThreads);  // one for the wire bytes
  launch(tally_traffic_kernel, {.blocks = dim3(static_cast<unsigned>(num_blocks)), .threads = dim3(kThreads)}, stream,
         arguments, reinterpret_cast<unsigned long long*>(output.tallies.data<int64_t>()), output.most_rows.data<int32_t>());
}

}  // namespace skipper::cuda

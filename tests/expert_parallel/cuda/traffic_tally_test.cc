#include "expert_parallel/cuda/traffic_tally.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "expert_parallel/cuda/device_tallies.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

constexpr int kNumExperts = 24;
constexpr int kTopK = 5;

class TrafficTallyTest : public GpuTest {
 protected:
  static Tensor integers(const std::vector<int32_t>& values, const Shape& shape) {
    Tensor tensor = Tensor::empty(shape, DType::kI32);
    std::ranges::copy(values, tensor.span<int32_t>().begin());
    return tensor;
  }
  // Rows by [hop][class] that the ids ask for, from the definition.
  static std::vector<int64_t> rows_of(const std::vector<int32_t>& ids, const std::vector<uint8_t>& classes) {
    std::vector<int64_t> rows(9);
    for (size_t t = 0; t < classes.size(); ++t) {
      std::set<int32_t> ranks;
      for (size_t j = 0; j < kTopK; ++j) {
        if (ids[t * kTopK + j] >= 0) ranks.insert(rank_of(ids[t * kTopK + j]));
      }
      if (classes[t] >= 3) continue;
      for (const int32_t rank : ranks) ++rows[static_cast<size_t>(hop_of(rank) * 3 + classes[t])];
    }
    return rows;
  }
  static int32_t rank_of(int32_t expert) { return expert / 6; }
  static int32_t hop_of(int32_t rank) { return rank == 1 ? 0 : rank == 0 ? 1 : 2; }  // own rank 1, of nodes {0, 1}, {2, 3}
};

TEST_F(TrafficTallyTest, CountsARowOnceForEachRankByHopAndClass) {
  for (const size_t num_rows : {0u, 1u, 131u, 1000u}) {
    std::mt19937 generator(3);
    std::vector<int32_t> routed, kept;
    std::vector<uint8_t> classes;
    for (size_t t = 0; t < num_rows; ++t) {
      classes.push_back(std::vector<uint8_t>{0, 1, 2, 255}[generator() % 4]);
      for (int j = 0; j < kTopK; ++j) {
        routed.push_back(static_cast<int32_t>(generator() % kNumExperts));
        kept.push_back(generator() % 2 == 0 ? routed.back() : -1);
      }
    }
    std::vector<int32_t> ranks, hops;
    for (int32_t e = 0; e < kNumExperts; ++e) ranks.push_back(rank_of(e));
    for (int32_t r = 0; r < 4; ++r) hops.push_back(hop_of(r));
    const auto n = static_cast<int64_t>(num_rows);
    Tensor host_classes = Tensor::empty({n}, DType::kU8);
    std::ranges::copy(classes, host_classes.span<uint8_t>().begin());
    const Tensor routed_ids = on_gpu(integers(routed, {n, kTopK})), expert_ids = on_gpu(integers(kept, {n, kTopK}));
    const Tensor token_class = on_gpu(host_classes), rank_of_expert = on_gpu(integers(ranks, {kNumExperts}));
    const Tensor hop_of_rank = on_gpu(integers(hops, {4}));
    Tensor tallies = Tensor::zeros({kNumTrafficTallies}, DType::kI64, Device::cuda(0));
    const WireBytes wire{{{1, 2, 3}, {4, 5, 6000000000}}};
    const Tensor num_sent = on_gpu(integers({5, 3, 11, 7}, {4}));
    Tensor most_rows = on_gpu(integers({9}, {1}));
    const Tensor itself;
    tally_traffic({routed_ids, expert_ids, token_class, rank_of_expert, hop_of_rank, num_sent, itself}, wire,
                  {tallies, most_rows}, stream());
    EXPECT_EQ(on_host(most_rows).data<int32_t>()[0], 11);

    const std::vector<int64_t> sent = rows_of(kept, classes), unskipped = rows_of(routed, classes);
    std::vector<int64_t> expected, saved;
    for (size_t i = 0; i < 9; ++i) saved.push_back(unskipped[i] - sent[i]);
    for (const std::vector<int64_t>& rows : {sent, sent, saved, saved}) expected.insert(expected.end(), rows.begin(), rows.end());
    expected.insert(expected.end(), {1, 2, 3, 4, 5, 6000000000});
    const Tensor counted = on_host(tallies);
    EXPECT_EQ(std::vector<int64_t>(counted.span<int64_t>().begin(), counted.span<int64_t>().end()), expected) << num_rows;
  }
}

TEST_F(TrafficTallyTest, OnlyNewsAreAdded) {
  DeviceTallies tallies(1, Device::cuda(0));
  Tensor none = on_gpu(Tensor::zeros({0, kTopK}, DType::kI32)), no_class = on_gpu(Tensor::zeros({0}, DType::kU8));
  Tensor zeros = on_gpu(Tensor::zeros({kNumExperts}, DType::kI32));
  PairCounters pairs(1);
  TrafficCounters traffic;
  for (int step = 1; step <= 3; ++step) {
    Tensor sums = tallies.traffic();
    Tensor most_rows = on_gpu(integers({9}, {1}));
    tally_traffic({none, none, no_class, zeros, zeros, zeros, Tensor()}, {{{0, 10, 0}, {0, 0, 7}}}, {sums, most_rows}, stream());
    EXPECT_EQ(on_host(most_rows).data<int32_t>()[0], 9) << "no row was sent";
    tallies.queue_fetch(stream());
    stream().synchronize();
    tallies.add_news({.dispatch = 1, .combine = 1}, pairs, traffic);
    EXPECT_EQ(traffic.wire_bytes[0][1], 10 * step);
    EXPECT_EQ(traffic.wire_bytes[1][2], 7 * step);
  }
}

}  // namespace
}  // namespace skipper::cuda

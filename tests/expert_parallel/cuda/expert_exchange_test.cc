// Runs under mpirun: the MoE layer across GPU ranks, against one GPU that holds all experts, and against the CPU's ranks.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "expert_parallel/cuda/device_dispatcher.h"
#include "tests/expert_parallel/cuda/device_moe_run.h"
#include "tests/kernels/cuda/gpu_test.h"
#include "tests/support/nccl_test.h"

namespace skipper::cuda {
namespace {

constexpr MoeShape kShape{.hidden_size = 256, .intermediate_size = 96, .num_experts = 32, .top_k = 4};
constexpr DispatchMode kModes[] = {DispatchMode::kExactCounts, DispatchMode::kFixedSlots};

class ExpertExchangeTest : public NcclTest {
 protected:
  static std::vector<size_t> own_tokens(const TokenBatch& batch) {
    std::vector<size_t> tokens;
    for (size_t t = 0; t < batch.size(); ++t) {
      if (batch.owners[t] == rank()) tokens.push_back(t);
    }
    return tokens;
  }
  // Room for all rows of the largest rank.
  static DispatchPlan full_plan(DispatchMode mode, const TokenBatch& batch) {
    std::vector<int64_t> counts(static_cast<size_t>(size()));
    for (const int owner : batch.owners) ++counts[static_cast<size_t>(owner)];
    return {mode, *std::ranges::max_element(counts)};
  }
  DeviceMoeSetup setup(const MoeWeights& weights) {
    return {.weights = weights, .device = device(), .dispatcher = size() == 1 ? nullptr : &dispatcher()};
  }
  DeviceDispatcher& dispatcher() {
    if (!dispatcher_) dispatcher_ = std::make_unique<DeviceDispatcher>(nccl(), topology_);
    return *dispatcher_;
  }

  // Both modes give the bits of the first, and but for the order of the last sums what one rank gives.
  void expect_what_one_rank_computes(const DeviceMoeSetup& across, const TokenBatch& batch) {
    DeviceMoeSetup alone = across;
    alone.dispatcher = nullptr;
    const TokenBatch own = batch.subset(own_tokens(batch));
    const Tensor expected = DeviceMoeRun(alone, stream()).forward(own).out;
    DeviceMoeRun run(across, stream());
    const Tensor first = run.forward(own, full_plan(kModes[0], batch)).out;
    const Tensor second = run.forward(own, full_plan(kModes[1], batch)).out;
    EXPECT_TRUE(same_bytes(first, second));
    EXPECT_FALSE(run.take_overflow());
    if (own.size() > 0) {
      EXPECT_LT(relative_error(first, expected), 1e-5);
    }
  }

 private:
  ClusterTopology topology_{std::vector<int>(static_cast<size_t>(test_mpi_runtime().size()), 0)};
  std::unique_ptr<DeviceDispatcher> dispatcher_;
};

TEST_F(ExpertExchangeTest, RanksComputeWhatOneRankComputes) {
  const MoeWeights weights = random_moe_weights(kShape, 21);
  for (const size_t num_tokens : {1u, 37u, 61u}) {
    expect_what_one_rank_computes(setup(weights), random_batch(num_tokens, kShape, size(), 22));
  }
}

TEST_F(ExpertExchangeTest, ExpertsOfDifferentFormatsGiveWhatOneRankGives) {
  const MoeWeights weights = random_moe_weights(kShape, 23);
  DeviceMoeSetup across = setup(weights);
  const WeightFormat formats[] = {{}, {WeightKind::kInt8, 128}, {WeightKind::kInt4, 32}};
  for (int64_t e = 0; e < kShape.num_experts; ++e) across.expert_formats.push_back(formats[e % 3]);
  expect_what_one_rank_computes(across, random_batch(29, kShape, size(), 24));
}

TEST_F(ExpertExchangeTest, CodedRowsGiveWhatOneRankGives) {
  const MoeWeights weights = random_moe_weights(kShape, 41);
  DeviceMoeSetup across = setup(weights);
  for (const PayloadFormat format : {PayloadFormat::kInt8, PayloadFormat::kFp8}) {
    across.payload_format = format;
    expect_what_one_rank_computes(across, random_batch(33, kShape, size(), 42));
  }
}

TEST_F(ExpertExchangeTest, RanksWithoutTokensTakePart) {
  const MoeWeights weights = random_moe_weights(kShape, 25);
  TokenBatch batch = random_batch(19, kShape, size(), 26);
  std::ranges::fill(batch.owners, size() - 1);
  expect_what_one_rank_computes(setup(weights), batch);
}

TEST_F(ExpertExchangeTest, RanksWithoutExpertsTakePart) {
  const MoeShape few{.hidden_size = 128, .intermediate_size = 64, .num_experts = 3, .top_k = 2};
  const MoeWeights weights = random_moe_weights(few, 27);
  expect_what_one_rank_computes(setup(weights), random_batch(23, few, size(), 28));
}

TEST_F(ExpertExchangeTest, SkipsAndCountsWhatTheCpusRanksDo) {
  const MoeWeights weights = random_moe_weights(kShape, 29);
  LevelTable levels = levels_with({{0.2f, 0.35f}});
  levels.levels[1].tau_dst[0] = {0.0f, 0.1f, 0.1f};
  TokenBatch batch = random_batch(60, kShape, size(), 30);
  for (size_t t = 0; t < batch.size(); ++t) {
    batch.classes[t] = static_cast<TokenClass>(t % 3);
    batch.levels[t] = static_cast<uint8_t>(t / 3 % 2);
  }
  const DispatchConfig formats{.combine_dtype = DType::kF32};
  const MoeRun cpu = run_moe({.weights = weights, .world_size = size(), .formats = formats, .levels = levels}, batch);
  DeviceMoeSetup across = setup(weights);
  across.levels = levels;
  DeviceMoeRun run(across, stream());
  const std::vector<size_t> own = own_tokens(batch);
  const DeviceMoeResult result = run.forward(batch.subset(own), full_plan(DispatchMode::kExactCounts, batch));
  for (size_t i = 0; i < own.size(); ++i) {
    const int32_t* kept = result.expert_ids.row<int32_t>(static_cast<int64_t>(i));
    EXPECT_EQ(std::vector<int32_t>(kept, kept + kShape.top_k), cpu.tokens[own[i]].kept_ids) << own[i];
  }
  run.fetch_counts();
  const TrafficCounters& expected = cpu.counters[static_cast<size_t>(rank())];
  EXPECT_EQ(run.traffic().pairs_run, expected.pairs_run);
  EXPECT_EQ(run.traffic().pairs_skipped, expected.pairs_skipped);
  if (size() == 1) return;  // nothing is dispatched
  constexpr auto kDispatch = static_cast<size_t>(Direction::kDispatch);
  EXPECT_EQ(run.traffic().payload_bytes[kDispatch], expected.payload_bytes[kDispatch]);
  EXPECT_EQ(run.traffic().saved_bytes[kDispatch], expected.saved_bytes[kDispatch]);
  EXPECT_GT(cpu.total().saved_bytes[kDispatch][static_cast<size_t>(Hop::kNode)][0], 0);
}

TEST_F(ExpertExchangeTest, UsageTellsTheRowsThatATokenSentAndSaved) {
  const MoeWeights weights = random_moe_weights(kShape, 31);
  DeviceMoeSetup across = setup(weights);
  across.levels = levels_with({{0.3f, 0.3f}});
  TokenBatch batch = random_batch(40, kShape, size(), 32);
  std::ranges::fill(batch.levels, uint8_t{1});
  DeviceMoeRun run(across, stream());
  const DeviceMoeResult result = run.forward(batch.subset(own_tokens(batch)), full_plan(DispatchMode::kFixedSlots, batch));
  const auto ranks_asked = [&](const Tensor& ids, int64_t token) {
    std::vector<int> ranks;
    for (int64_t j = 0; j < kShape.top_k; ++j) {
      const int32_t expert = ids.row<int32_t>(token)[j];
      // Blocks of equal size, as there are 32 experts on 1, 2 or 4 ranks.
      const int home = expert < 0 ? rank() : static_cast<int>(expert * size() / kShape.num_experts);
      if (home != rank() && std::ranges::count(ranks, home) == 0) ranks.push_back(home);
    }
    return static_cast<int32_t>(ranks.size());
  };
  for (int64_t token = 0; token < result.usage.dim(0); ++token) {
    const int32_t* usage = result.usage.row<int32_t>(token);
    const int32_t sent = ranks_asked(result.expert_ids, token);
    EXPECT_EQ(usage[static_cast<size_t>(UsageColumn::kRowsSent)], sent) << token;
    EXPECT_EQ(usage[static_cast<size_t>(UsageColumn::kRowsSaved)], ranks_asked(result.routed_ids, token) - sent) << token;
  }
}

TEST_F(ExpertExchangeTest, WireBytesAreThePayloadAndItsListsOrWholeSlots) {
  if (size() == 1) GTEST_SKIP() << "one rank sends nothing";
  const MoeWeights weights = random_moe_weights(kShape, 33);
  const TokenBatch batch = random_batch(40, kShape, size(), 34);
  constexpr int64_t kRowBytes = kShape.hidden_size * 2 + kShape.top_k * 8;
  for (const DispatchMode mode : kModes) {
    DeviceMoeRun run(setup(weights), stream());
    const DispatchPlan plan = full_plan(mode, batch);
    run.forward(batch.subset(own_tokens(batch)), plan);
    run.fetch_counts();
    const int64_t sent_rows = run.traffic().total_payload_bytes(Hop::kNode) / (kShape.hidden_size * 6);  // both directions
    const int64_t rows = mode == DispatchMode::kExactCounts ? sent_rows : plan.capacity * (size() - 1);
    EXPECT_EQ(run.traffic().wire_bytes[0][static_cast<size_t>(Hop::kNode)], rows * kRowBytes + 4 * (size() - 1));
  }
}

TEST_F(ExpertExchangeTest, TooSmallACapacityRaisesTheFlagAndHarmsNothingElse) {
  if (size() == 1) GTEST_SKIP() << "one rank sends nothing";
  const MoeWeights weights = random_moe_weights(kShape, 35);
  const TokenBatch batch = random_batch(60, kShape, size(), 36);
  const TokenBatch own = batch.subset(own_tokens(batch));
  ASSERT_GT(own.size(), 2u);
  for (const DispatchMode mode : kModes) {
    DeviceMoeRun run(setup(weights), stream());
    const Tensor expected = run.forward(own, full_plan(mode, batch)).out;
    EXPECT_FALSE(run.take_overflow());
    run.forward(own, {mode, 1});
    EXPECT_TRUE(run.take_overflow());
    EXPECT_FALSE(run.take_overflow());
    EXPECT_TRUE(same_bytes(run.forward(own, full_plan(mode, batch)).out, expected));
    EXPECT_FALSE(run.take_overflow());
  }
}

// Four ranks that pretend to be two nodes.
class NodeRelayTest : public ExpertExchangeTest {
 protected:
  static constexpr int kNodes[] = {0, 1, 0, 1};

  void SetUp() override {
    ExpertExchangeTest::SetUp();
    if (!IsSkipped() && size() != 4) GTEST_SKIP() << "two nodes of two ranks are four";
  }
  // Rows that this rank's tokens cost on their way out, by hop: once for each other node, once more for each rank there that is
  // not the partner, and once for the neighbour.
  static std::vector<int64_t> rows_by_hop(const Tensor& ids) {
    std::vector<int64_t> rows(3);
    for (int64_t token = 0; token < ids.dim(0); ++token) {
      std::vector<bool> goes(4);
      for (int64_t j = 0; j < kShape.top_k; ++j) {
        const int32_t expert = ids.row<int32_t>(token)[j];
        if (expert >= 0) goes[static_cast<size_t>(expert) * 4 / kShape.num_experts] = true;
      }
      const auto own = static_cast<size_t>(rank());
      const size_t neighbour = (own + 2) % 4, partner = own ^ 1, beyond = (partner + 2) % 4;
      rows[0] += goes[own] ? 1 : 0;
      rows[1] += (goes[neighbour] ? 1 : 0) + (goes[beyond] ? 1 : 0);
      rows[2] += goes[partner] || goes[beyond] ? 1 : 0;
    }
    return rows;
  }
};

TEST_F(NodeRelayTest, RowsThatCrossTheNetworkOncePerNodeGiveTheBitsOfDirectOnes) {
  const MoeWeights weights = random_moe_weights(kShape, 51);
  DeviceMoeSetup across = setup(weights);
  across.node_of_rank.assign(std::begin(kNodes), std::end(kNodes));
  const ClusterTopology topology(across.node_of_rank);
  for (const PayloadFormat format : {PayloadFormat::kBF16, PayloadFormat::kInt8, PayloadFormat::kFp8}) {
    DeviceDispatcher relaying(nccl(), topology);
    across.dispatcher = &relaying;
    across.payload_format = format;
    DeviceMoeRun run(across, stream());
    ASSERT_TRUE(relaying.prepare_relay(run.dispatch_shape()));
    for (const size_t num_tokens : {1u, 2u, 37u, 61u}) {
      TokenBatch batch = random_batch(num_tokens, kShape, size(), 52);
      if (num_tokens == 37) std::ranges::replace(batch.owners, 2, 3);
      const TokenBatch own = batch.subset(own_tokens(batch));
      const Tensor direct = run.forward(own, full_plan(DispatchMode::kExactCounts, batch)).out;
      const Tensor relayed = run.forward(own, full_plan(DispatchMode::kExactCountsByNode, batch)).out;
      EXPECT_TRUE(same_bytes(relayed, direct)) << num_tokens;
      const Tensor slots = run.forward(own, full_plan(DispatchMode::kFixedSlots, batch)).out;
      EXPECT_TRUE(same_bytes(slots, direct)) << "the relay leaves nothing behind that harms";
      EXPECT_FALSE(run.take_overflow());
    }
  }
}

TEST_F(NodeRelayTest, CountsARowOncePerNodeAndOnceForEachThatGetsItThere) {
  const MoeWeights weights = random_moe_weights(kShape, 53);
  DeviceMoeSetup across = setup(weights);
  across.levels = levels_with({{0.3f, 0.3f}});
  across.node_of_rank.assign(std::begin(kNodes), std::end(kNodes));
  const ClusterTopology topology(across.node_of_rank);
  DeviceDispatcher relaying(nccl(), topology);
  across.dispatcher = &relaying;
  DeviceMoeRun run(across, stream());
  ASSERT_TRUE(relaying.prepare_relay(run.dispatch_shape()));
  TokenBatch batch = random_batch(60, kShape, size(), 54);
  std::ranges::fill(batch.levels, uint8_t{1});
  const DeviceMoeResult result =
      run.forward(batch.subset(own_tokens(batch)), full_plan(DispatchMode::kExactCountsByNode, batch));
  run.fetch_counts();
  const std::vector<int64_t> sent = rows_by_hop(result.expert_ids), unskipped = rows_by_hop(result.routed_ids);
  for (size_t hop = 0; hop < 3; ++hop) {
    int64_t payload = 0, saved = 0;
    for (size_t c = 0; c < kNumTokenClasses; ++c) {
      payload += run.traffic().payload_bytes[0][hop][c];
      saved += run.traffic().saved_bytes[0][hop][c];
    }
    EXPECT_EQ(payload, sent[hop] * kShape.hidden_size * 2) << hop;
    EXPECT_EQ(saved, (unskipped[hop] - sent[hop]) * kShape.hidden_size * 2) << hop;
  }
}

TEST_F(ExpertExchangeTest, ACapturedLayerGivesTheSameBits) {
  const MoeWeights weights = random_moe_weights(kShape, 37);
  const TokenBatch batch = random_batch(31, kShape, size(), 38);
  const DispatchPlan plan{DispatchMode::kFixedSlots, 31};
  DeviceMoeRun run(setup(weights), stream());
  const Tensor expected = run.forward(batch.subset(own_tokens(batch)), plan).out;

  const auto native = static_cast<cudaStream_t>(stream().native());
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t captured = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(native, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  run.queue(plan);
  ASSERT_EQ(cudaStreamEndCapture(native, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&captured, graph, 0), cudaSuccess);
  for (int replay = 0; replay < 3; ++replay) {
    ASSERT_EQ(cudaGraphLaunch(captured, native), cudaSuccess);
    nccl().synchronize(stream());
    EXPECT_TRUE(same_bytes(run.fetch().out, expected)) << replay;
  }
  cudaGraphExecDestroy(captured);
  cudaGraphDestroy(graph);
}

}  // namespace
}  // namespace skipper::cuda

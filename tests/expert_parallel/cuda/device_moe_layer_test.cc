#include "expert_parallel/cuda/device_moe_layer.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "tests/expert_parallel/cuda/device_moe_run.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

constexpr MoeShape kDemoShape{.hidden_size = 256, .intermediate_size = 96, .num_experts = 32, .top_k = 4};
constexpr MoeShape kLargeShape{.hidden_size = 2048, .intermediate_size = 768, .num_experts = 9, .top_k = 8};

class DeviceMoeLayerTest : public GpuTest {
 protected:
  // The definition, with the weights that the GPU multiplied.
  static Tensor reference(const MoeWeights& weights, const TokenBatch& batch) {
    Tensor expected = Tensor::empty({static_cast<int64_t>(batch.size()), batch.hidden_size}, DType::kF32);
    for (size_t t = 0; t < batch.size(); ++t) {
      const auto row = reference_moe(weights, reference_routing(weights, batch.row(t)), batch.row(t));
      std::ranges::transform(row, expected.row<float>(static_cast<int64_t>(t)),
                             [](double value) { return static_cast<float>(value); });
    }
    return expected;
  }

  void expect_reference(const DeviceMoeSetup& setup, size_t num_tokens) {
    DeviceMoeRun run(setup, stream());
    const TokenBatch batch = random_batch(num_tokens, setup.weights.shape, 1, 5);
    const DeviceMoeResult result = run.forward(batch);
    EXPECT_LT(relative_error(result.out, reference(run.multiplied_weights(), batch)), 1e-2);
  }
};

TEST_F(DeviceMoeLayerTest, EqualsTheDefinitionInTheDemoShape) {
  const MoeWeights weights = random_moe_weights(kDemoShape, 1);
  for (const size_t num_tokens : {1u, 7u, 64u}) expect_reference({.weights = weights}, num_tokens);
}

TEST_F(DeviceMoeLayerTest, EqualsTheDefinitionInALargeShape) {
  const MoeWeights weights = random_moe_weights(kLargeShape, 2);
  for (const size_t num_tokens : {1u, 5u}) expect_reference({.weights = weights}, num_tokens);
}

TEST_F(DeviceMoeLayerTest, EqualsTheDefinitionWhenExpertsHaveDifferentFormats) {
  const MoeWeights weights = random_moe_weights(kDemoShape, 3);
  DeviceMoeSetup setup{.weights = weights};
  const WeightFormat formats[] = {{}, {WeightKind::kInt8, 64}, {WeightKind::kInt4, 32}, {WeightKind::kInt4, 128}};
  for (int64_t e = 0; e < kDemoShape.num_experts; ++e) setup.expert_formats.push_back(formats[e % 4]);
  for (const size_t num_tokens : {1u, 61u}) expect_reference(setup, num_tokens);
}

TEST_F(DeviceMoeLayerTest, EqualsTheDefinitionWhenSumsAreRounded) {
  const MoeWeights weights = random_moe_weights(kDemoShape, 3);
  expect_reference({.weights = weights, .expert_output_dtype = DType::kBF16, .combine_dtype = DType::kBF16}, 17);
}

TEST_F(DeviceMoeLayerTest, RoundsToTheCombineFormatWithoutOtherRanks) {
  const MoeWeights weights = random_moe_weights(kDemoShape, 4);
  const TokenBatch batch = random_batch(9, kDemoShape, 1, 6);
  const Tensor exact = DeviceMoeRun({.weights = weights}, stream()).forward(batch).out;
  const Tensor rounded = DeviceMoeRun({.weights = weights, .combine_dtype = DType::kBF16}, stream()).forward(batch).out;
  for (int64_t i = 0; i < exact.num_elements(); ++i) {
    ASSERT_EQ(static_cast<float>(bf16(exact.data<float>()[i])), rounded.data<float>()[i]) << i;
  }
}

TEST_F(DeviceMoeLayerTest, ARowsBitsDoNotDependOnTheRowsBesideIt) {
  const MoeWeights weights = random_moe_weights(kDemoShape, 7);
  DeviceMoeRun run({.weights = weights}, stream());
  const TokenBatch batch = random_batch(53, kDemoShape, 1, 8);
  const Tensor together = run.forward(batch).out;
  for (const size_t token : {0u, 1u, 31u, 52u}) {
    const Tensor alone = run.forward(batch.subset({token})).out;
    EXPECT_TRUE(same_bytes(together.slice(static_cast<int64_t>(token), static_cast<int64_t>(token) + 1), alone)) << token;
  }
}

TEST_F(DeviceMoeLayerTest, SkipsAndCountsThePairsThatTheCpuSkips) {
  const MoeWeights weights = random_moe_weights(kDemoShape, 9);
  const LevelTable levels = levels_with({{0.2f, 0.4f}, {0.3f, 0.1f}});
  TokenBatch batch = random_batch(60, kDemoShape, 1, 10);
  for (size_t t = 0; t < batch.size(); ++t) {
    batch.classes[t] = static_cast<TokenClass>(t % 3);
    batch.levels[t] = static_cast<uint8_t>(t / 3 % 3);
  }
  DeviceMoeRun run({.weights = weights, .levels = levels}, stream());
  const DeviceMoeResult result = run.forward(batch);
  run.fetch_counts();
  const MoeRun cpu = run_moe({.weights = weights, .levels = levels}, batch);
  const TrafficCounters expected = cpu.total();
  for (size_t t = 0; t < batch.size(); ++t) {
    const auto row = static_cast<int64_t>(t);
    const int32_t* kept = result.expert_ids.row<int32_t>(row);
    const int32_t* routed = result.routed_ids.row<int32_t>(row);
    EXPECT_EQ(std::vector<int32_t>(kept, kept + kDemoShape.top_k), cpu.tokens[t].kept_ids) << t;
    EXPECT_EQ(std::vector<int32_t>(routed, routed + kDemoShape.top_k), cpu.tokens[t].routed_ids) << t;
    const int32_t* usage = result.usage.row<int32_t>(row);
    EXPECT_EQ(usage[0], kDemoShape.top_k - std::count(kept, kept + kDemoShape.top_k, -1)) << t;
    EXPECT_EQ(usage[0] + usage[1], kDemoShape.top_k) << t;
  }
  EXPECT_EQ(run.traffic().pairs_run, expected.pairs_run);
  EXPECT_EQ(run.traffic().pairs_skipped, expected.pairs_skipped);
  EXPECT_GT(expected.pairs_skipped[0], 0);
  EXPECT_EQ(run.pairs().at(0, TokenPhase::kPrompt, TokenClass::kVision, PairOutcome::kSkipped), expected.pairs_skipped[1]);
}

TEST_F(DeviceMoeLayerTest, ARowWhosePairsAreAllSkippedIsExactlyZero) {
  const MoeWeights weights = random_moe_weights(kDemoShape, 11);
  TokenBatch batch = random_batch(10, kDemoShape, 1, 12);
  for (size_t t = 0; t < batch.size(); t += 2) batch.levels[t] = 1;
  const DeviceMoeSetup setup{.weights = weights, .levels = levels_with({{2.0f, 2.0f}})};
  const Tensor out = DeviceMoeRun(setup, stream()).forward(batch).out;
  for (int64_t t = 0; t < out.dim(0); ++t) {
    const float* row = out.row<float>(t);
    EXPECT_EQ(std::count(row, row + out.dim(1), 0.0f) == out.dim(1), t % 2 == 0) << t;
  }
}

TEST_F(DeviceMoeLayerTest, PaddingRowsAreHarmlessAndNotCounted) {
  const MoeWeights weights = random_moe_weights(kDemoShape, 13);
  DeviceMoeRun run({.weights = weights}, stream());
  TokenBatch batch = random_batch(5, kDemoShape, 1, 14);
  const Tensor without = run.forward(batch).out;
  run.fetch_counts();
  const TrafficCounters before = run.traffic();

  const float nan = std::numeric_limits<float>::quiet_NaN();
  batch.hidden.resize(8 * static_cast<size_t>(kDemoShape.hidden_size), nan);
  batch.classes.resize(8, TokenClass{255});
  batch.levels.resize(8, 0);
  batch.owners.resize(8, 0);
  const Tensor with = run.forward(batch).out;
  run.fetch_counts();
  EXPECT_TRUE(same_bytes(with.first(5), without));
  for (const float value : with.slice(5, 8).span<float>()) EXPECT_EQ(value, 0.0f);
  EXPECT_EQ((run.traffic() - before).pairs_run, before.pairs_run);
}

TEST_F(DeviceMoeLayerTest, TakesABatchWithoutTokens) {
  const MoeWeights weights = random_moe_weights(kDemoShape, 15);
  DeviceMoeRun run({.weights = weights}, stream());
  EXPECT_EQ(run.forward(random_batch(0, kDemoShape, 1, 1)).out.dim(0), 0);
}

TEST_F(DeviceMoeLayerTest, ACapturedLayerFollowsNewThresholds) {
  const MoeWeights weights = random_moe_weights(kDemoShape, 16);
  TokenBatch batch = random_batch(12, kDemoShape, 1, 17);
  std::ranges::fill(batch.levels, uint8_t{1});
  DeviceMoeRun run({.weights = weights, .levels = levels_with({{0.0f, 0.0f}})}, stream());
  const Tensor unskipped = run.forward(batch).out;

  const auto native = static_cast<cudaStream_t>(stream().native());
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t captured = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(native, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  run.queue();
  ASSERT_EQ(cudaStreamEndCapture(native, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&captured, graph, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(captured, native), cudaSuccess);
  EXPECT_TRUE(same_bytes(run.fetch().out, unskipped));

  LevelTable stricter = levels_with({{0.3f, 0.3f}});
  stricter.version = 2;
  run.upload_levels(stricter);
  ASSERT_EQ(cudaGraphLaunch(captured, native), cudaSuccess);
  const DeviceMoeResult replayed = run.fetch();
  EXPECT_TRUE(same_bytes(replayed.out, run.forward(batch).out));
  EXPECT_FALSE(same_bytes(replayed.out, unskipped));
  cudaGraphExecDestroy(captured);
  cudaGraphDestroy(graph);
}

}  // namespace
}  // namespace skipper::cuda

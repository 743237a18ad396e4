// Runs under mpirun: decode steps across GPU ranks whose rows have more or less room on their way.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "tests/model/prompt_fixture.h"
#include "tests/model/sequence_runner.h"
#include "tests/support/nccl_test.h"

namespace skipper {
namespace {

using Logits = std::vector<std::vector<float>>;

struct RunResult {
  Logits logits;
  std::vector<int64_t> pairs, loads;
  TrafficCounters traffic;
  DispatchDemand demand;
};

int64_t wire_bytes(const TrafficCounters& traffic) {
  int64_t sum = 0;
  for (const auto& direction : traffic.wire_bytes) {
    for (const int64_t bytes : direction) sum += bytes;
  }
  return sum;
}

bool same_bits(const Logits& a, const Logits& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].size() != b[i].size() || std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) return false;
  }
  return true;
}

// Level 1 skips about half of the pairs.
LevelTable levels_of(int num_moe_layers) {
  LevelTable table = unskipped_levels(num_moe_layers);
  OperatingPoint half = table.levels.front();
  const float equal = 1.0f / static_cast<float>(num_moe_layers);
  for (std::vector<float>& alpha : half.alpha) alpha.assign(static_cast<size_t>(num_moe_layers), equal);
  half.tau = {0.2f * equal, 0.2f * equal};
  table.levels.push_back(half);
  return table;
}

class DecoderRanksTest : public NcclTest {
 protected:
  static constexpr size_t kNumSequences = 12, kNumTokens = 5;

  // As many on every rank, of different tokens on different ranks.
  static std::vector<TestSequence> sequences(uint8_t level) {
    const std::vector<PromptFixture> prompts = read_prompts(model_fixture("demo_text.safetensors"));
    std::vector<TestSequence> result;
    for (size_t i = 0; i < kNumSequences; ++i) {
      const std::vector<int32_t>& ids = prompts[i % prompts.size()].token_ids;
      TestSequence& sequence = result.emplace_back();
      sequence.level = level;
      for (size_t t = 0; t < kNumTokens; ++t) {
        sequence.token_ids.push_back(ids[(t + i + static_cast<size_t>(rank())) % ids.size()]);
        sequence.rows.push_back(static_cast<int32_t>(t));
      }
    }
    return result;
  }

  // slot_rows 0: nobody is told anything, and all rows have room. Twice, so that graphs are recorded and launched.
  RunResult run_steps(int32_t slot_rows, uint8_t level, GraphUse graphs = GraphUse::kDecodeSteps) {
    RunFormats formats;
    formats.device = device();
    formats.graphs = graphs;
    formats.gpu_data = size() > 1 ? &nccl() : nullptr;
    const LevelTable levels = levels_of(load_model_config(demo_model()).num_moe_layers());
    SequenceRunner runner(demo_model(), control(), levels, formats);
    RunPlan plan = plan_for(kNumTokens, 1);
    plan.slot_rows = slot_rows;
    const Logits first = runner.run(sequences(level), plan);
    RunResult result;
    result.logits = runner.run(sequences(level), plan);
    EXPECT_TRUE(same_bits(first, result.logits));
    const std::span<const int64_t> pairs = runner.model().pairs().counts();
    result.pairs.assign(pairs.begin(), pairs.end());
    result.loads = runner.model().expert_loads();
    result.traffic = runner.model().traffic();
    result.demand = runner.model().dispatch_demand();
    return result;
  }

  static void expect_the_same_results(const RunResult& run, const RunResult& expected) {
    EXPECT_TRUE(same_bits(run.logits, expected.logits));
    EXPECT_EQ(run.pairs, expected.pairs);
    EXPECT_EQ(run.loads, expected.loads);
    EXPECT_EQ(run.traffic.payload_bytes, expected.traffic.payload_bytes);
    EXPECT_EQ(run.traffic.saved_bytes, expected.traffic.saved_bytes);
    EXPECT_EQ(run.demand.most_rows, expected.demand.most_rows);
  }
};

TEST_F(DecoderRanksTest, AStepWithTooLittleRoomRunsOnceMoreAndIsCountedOnce) {
  if (size() == 1) GTEST_SKIP() << "one rank sends nothing";
  for (const GraphUse graphs : {GraphUse::kDecodeSteps, GraphUse::kNone}) {
    const RunResult expected = run_steps(0, 0, graphs);
    EXPECT_EQ(expected.demand.num_reruns, 0);
    EXPECT_GT(expected.demand.most_rows, 1);
    const RunResult scarce = run_steps(1, 0, graphs);
    EXPECT_EQ(scarce.demand.num_reruns, static_cast<int64_t>(2 * kNumTokens)) << "every step of both runs";
    expect_the_same_results(scarce, expected);
    EXPECT_GT(wire_bytes(scarce.traffic), wire_bytes(expected.traffic)) << "the first try was sent, too";
  }
}

TEST_F(DecoderRanksTest, LessRoomThatSufficesSendsLessAndChangesNoBit) {
  if (size() == 1) GTEST_SKIP() << "one rank sends nothing";
  const RunResult expected = run_steps(0, 1, GraphUse::kNone);
  int32_t slot_rows = 6;
  RunResult enough = run_steps(slot_rows, 1, GraphUse::kNone);
  while (enough.demand.num_reruns > 0) enough = run_steps(slot_rows += 3, 1, GraphUse::kNone);
  expect_the_same_results(enough, expected);
  EXPECT_LE(slot_rows, static_cast<int32_t>(kNumSequences));
  EXPECT_GE(slot_rows, enough.demand.most_rows);
  if (slot_rows < static_cast<int32_t>(kNumSequences)) {
    EXPECT_LT(wire_bytes(enough.traffic), wire_bytes(expected.traffic));
  }
}

TEST_F(DecoderRanksTest, BeingToldTheShapeGivesTheBitsOfAskingForIt) {
  const RunResult asked = run_steps(0, 1), told = run_steps(static_cast<int32_t>(kNumSequences), 1);
  expect_the_same_results(told, asked);
  EXPECT_EQ(told.demand.num_reruns, 0);
  EXPECT_EQ(wire_bytes(told.traffic), wire_bytes(asked.traffic));
}

}  // namespace
}  // namespace skipper

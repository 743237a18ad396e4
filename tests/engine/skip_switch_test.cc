// Skipping switches itself off where it does not pay, on thread ranks with the demo model.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "tests/support/demo_engine.h"

namespace skipper {
namespace {

constexpr int kLayers = 6;
constexpr int32_t kSwitchedTokens = 80;
constexpr int kNumRequests = 8;

DemoEngineOptions options_for(int num_ranks) {
  DemoEngineOptions options;
  options.num_ranks = num_ranks;
  options.engine = demo_engine_config();
  // The first decides about every pair and skips none; the second skips half of them.
  options.operating_points = {demo_operating_point(1e-9f, 1e-9f), demo_operating_point(0.05f, 0.05f)};
  options.gate = {.window_steps = 20};
  return options;
}

GenerationRequest request_at(uint8_t level, int i) {
  GenerationRequest request = demo_text_request("What is the capital of land " + std::to_string(i) + "?");
  request.min_new_tokens = kSwitchedTokens;
  request.max_new_tokens = kSwitchedTokens;
  request.level = level;
  return request;
}

std::vector<DrivenResult> run_at(DemoEngine& demo, uint8_t level) {
  return demo.driver.run(kNumRequests, [&](size_t i) { return request_at(level, static_cast<int>(i)); }, [](size_t, size_t) {});
}

bool is_off_everywhere(const OperatingState& state, TokenPhase phase) {
  return std::ranges::count(state.switched_off, phase, &SwitchedOffLayer::phase) == kLayers;
}

class SkipSwitchOnRanks : public testing::TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(Ranks, SkipSwitchOnRanks, testing::Values(1, 2));

TEST_P(SkipSwitchOnRanks, SwitchesOffALevelThatDecidesForNothing) {
  with_demo_engine(options_for(GetParam()), [&](DemoEngine& demo) {
    const std::vector<DrivenResult> exact = run_at(demo, 0);
    EXPECT_TRUE(demo.engine.operating_levels().in_force().switched_off.empty()) << "gold decides nothing";
    const std::vector<DrivenResult> answers = run_at(demo, 1);
    const OperatingState state = demo.engine.operating_levels().in_force();
    EXPECT_TRUE(is_off_everywhere(state, TokenPhase::kGenerated)) << state.switched_off.size() << " switches";
    for (const SwitchedOffLayer& layer : state.switched_off) EXPECT_GT(layer.cost_seconds, layer.saving_seconds);
    EXPECT_EQ(state.table.num_levels(), 3) << "operators do not see the forms of their levels";
    for (size_t i = 0; i < answers.size(); ++i) EXPECT_EQ(answers[i].generated_ids, exact[i].generated_ids);
    demo.engine.set_level(2);
    run_at(demo, 0);
    EXPECT_TRUE(demo.engine.operating_levels().in_force().switched_off.empty()) << "another level starts with all layers";
  });
}

TEST_P(SkipSwitchOnRanks, LeavesOnALevelThatSaves) {
  with_demo_engine(options_for(GetParam()), [&](DemoEngine& demo) {
    const std::vector<DrivenResult> answers = run_at(demo, 2);
    EXPECT_TRUE(demo.engine.operating_levels().in_force().switched_off.empty());
    EXPECT_GT(answers[0].usage.pairs_skipped, 0);
  });
}

TEST_P(SkipSwitchOnRanks, GoldHasTheSameBitsBesideALevelThatIsSwitched) {
  with_demo_engine(options_for(GetParam()), [&](DemoEngine& demo) {
    const std::vector<DrivenResult> alone = run_at(demo, 0);
    // Two of each in turn: requests are dealt out, and rank 0 judges by its own.
    const auto is_gold = [](size_t i) { return i % 4 < 2; };
    const auto number_of = [](size_t i) { return i / 4 * 2 + i % 2; };
    const auto request = [&](size_t i) { return request_at(is_gold(i) ? 0 : 1, static_cast<int>(number_of(i))); };
    const std::vector<DrivenResult> mixed = demo.driver.run(2 * kNumRequests, request, [](size_t, size_t) {});
    EXPECT_FALSE(demo.engine.operating_levels().in_force().switched_off.empty());
    for (size_t i = 0; i < mixed.size(); ++i) {
      if (!is_gold(i)) continue;
      EXPECT_EQ(mixed[i].generated_ids, alone[number_of(i)].generated_ids);
      EXPECT_EQ(mixed[i].usage.pairs_skipped, 0);
    }
  });
}

// What other ranks follow in two phases, as a command that works in between does.
TEST_P(SkipSwitchOnRanks, OtherRanksFollowASecondTime) {
  DemoEngineOptions options = options_for(GetParam());
  options.num_phases = 2;
  std::vector<std::vector<DrivenResult>> answers;
  with_demo_engine(options, [&](DemoEngine& demo) { answers.push_back(run_at(demo, 0)); });
  ASSERT_EQ(answers.size(), 2u);
  for (size_t i = 0; i < answers[0].size(); ++i) EXPECT_EQ(answers[0][i].generated_ids, answers[1][i].generated_ids);
}

}  // namespace
}  // namespace skipper

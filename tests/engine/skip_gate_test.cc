#include "engine/skip_gate.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace skipper {
namespace {

constexpr int kLayers = 2;
constexpr int64_t kSteps = 3;
constexpr int64_t kFirstPause = 8;

// Costs of a rank, window by window; of layer 0, prompt tokens.
class Rank {
 public:
  explicit Rank(const SkipGateConfig& config = {.window_steps = kSteps})
      : gate(config, kLayers), costs_(kLayers * kNumTokenPhases) {}

  // True when it changed a switch.
  bool window(const SkipCost& added, size_t level = 1) {
    bool has_changed = false;
    for (int64_t step = 0; step < kSteps; ++step) {
      if (step == 0) {
        costs_[0].deciding_seconds += added.deciding_seconds;
        costs_[0].running_seconds += added.running_seconds;
        costs_[0].pairs_decided += added.pairs_decided;
        costs_[0].pairs_skipped += added.pairs_skipped;
        costs_[0].pairs_run += added.pairs_run;
      }
      has_changed |= gate.observe(costs_, LevelSet().set(level));
    }
    return has_changed;
  }
  bool is_off() const { return gate.switches()[0].is_off; }
  std::span<const SkipCost> costs() const { return costs_; }

  SkipGate gate;

 private:
  std::vector<SkipCost> costs_;
};

// A pair takes a millisecond; deciding takes as long as ten.
SkipCost cost(int64_t pairs_skipped) {
  return {.deciding_seconds = 0.010, .running_seconds = 1.0, .pairs_decided = 1000 + pairs_skipped,
          .pairs_skipped = pairs_skipped, .pairs_run = 1000};
}

TEST(SkipGate, SwitchesOffAfterTwoWindowsInWhichDecidingCostMore) {
  Rank rank;
  EXPECT_FALSE(rank.window(cost(9)));
  EXPECT_TRUE(rank.window(cost(9)));
  EXPECT_TRUE(rank.is_off());
  EXPECT_DOUBLE_EQ(rank.gate.switches()[0].cost, 0.010);
  EXPECT_DOUBLE_EQ(rank.gate.switches()[0].saving, 0.009);
  EXPECT_EQ(rank.gate.exempt_layers(), (ExemptLayers{std::vector<uint8_t>{1, 0}, std::vector<uint8_t>{}}));
  EXPECT_EQ(rank.gate.num_changes(), 1);
}

TEST(SkipGate, LeavesOnWhatPays) {
  Rank rank;
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(rank.window(cost(20)));
  for (int i = 0; i < 6; ++i) EXPECT_FALSE(rank.window(cost(i % 2 == 0 ? 1 : 100))) << "one bad window is an accident";
  EXPECT_EQ(rank.gate.exempt_layers(), ExemptLayers{});
}

TEST(SkipGate, LeavesOnWhatItKnowsTooLittleOf) {
  Rank rank;
  const SkipCost few{.deciding_seconds = 1.0, .running_seconds = 1.0, .pairs_decided = 100, .pairs_run = 100};
  const SkipCost gold{.running_seconds = 1.0, .pairs_run = 1000};
  const SkipCost none_runs{.deciding_seconds = 1.0, .pairs_decided = 1000, .pairs_skipped = 1000};
  for (const SkipCost& one : {few, none_runs, gold, few, gold}) EXPECT_FALSE(rank.window(one));
  EXPECT_FALSE(rank.is_off());
}

TEST(SkipGate, TriesAgainAfterAPauseThatDoublesEachTime) {
  Rank rank;
  rank.window(cost(0));
  rank.window(cost(0));
  for (const int64_t pause : {kFirstPause, 2 * kFirstPause, 4 * kFirstPause}) {
    for (int64_t i = 1; i < pause; ++i) EXPECT_FALSE(rank.window({})) << i;
    EXPECT_TRUE(rank.window({}));
    EXPECT_FALSE(rank.is_off());
    EXPECT_TRUE(rank.window(cost(0))) << "one window is enough the next time";
  }
  for (int64_t i = 0; i < 8 * kFirstPause; ++i) rank.window({});
  EXPECT_FALSE(rank.window(cost(500)));
  EXPECT_FALSE(rank.window(cost(0))) << "it has proved itself, so it takes two again";
  EXPECT_TRUE(rank.window(cost(0)));
}

TEST(SkipGate, TurnsAllOnForALevelThatItHasNotJudged) {
  Rank rank;
  rank.window(cost(0), 1);
  rank.window(cost(0), 2);
  EXPECT_TRUE(rank.is_off());
  rank.window({}, 2);
  rank.window({}, 1);
  EXPECT_TRUE(rank.is_off());
  EXPECT_TRUE(rank.window({}, 3));
  EXPECT_FALSE(rank.is_off());
}

TEST(SkipGate, TurnsAllOnForOtherThresholds) {
  Rank rank;
  rank.window(cost(0));
  rank.window(cost(0));
  rank.gate.reset(rank.costs());
  EXPECT_FALSE(rank.is_off());
  EXPECT_EQ(rank.gate.num_changes(), 2);
  EXPECT_FALSE(rank.window(cost(0)));
  EXPECT_TRUE(rank.window(cost(0)));
  rank.gate.stop();
  EXPECT_FALSE(rank.is_off());
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(rank.window(cost(0)));
}

TEST(SkipGate, DoesNothingWhereItIsSwitchedOffOrNothingIsMeasured) {
  Rank rank({.switch_off = false, .window_steps = kSteps});
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(rank.window(cost(0)));
  SkipGate gate({.window_steps = 1}, kLayers);
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(gate.observe({}, LevelSet().set(1)));
  EXPECT_THROW(SkipGateConfig{.window_steps = 0}.validate(), InvalidFile);
}

}  // namespace
}  // namespace skipper

#include "residency/frame_table.h"

#include <gtest/gtest.h>

namespace skipper {
namespace {

constexpr ExpertCounts kCounts{.num_layers = 3, .num_experts = 4};

// Uses an expert as a layer does; true: it was there.
bool use(FrameTable& frames, const ExpertId& id) {
  frames.note_use(id);
  const int found = frames.find(id);
  const int frame = found >= 0 ? found : frames.take(id, id.layer);
  if (found >= 0) frames.pin(frame);
  frames.unpin(frame);
  return found >= 0;
}

TEST(FrameTable, GivesFreeFramesFirst) {
  FrameTable frames(2, kCounts, EvictionRule::kLeastRecent);
  EXPECT_EQ(frames.find({0, 0}), -1);
  const int first = frames.take({0, 0}, 0);
  const int second = frames.take({0, 1}, 0);
  EXPECT_NE(first, second);
  EXPECT_EQ(frames.find({0, 0}), first);
  EXPECT_EQ(frames.expert_of(second), (ExpertId{0, 1}));
}

TEST(FrameTable, KeepsPinnedExperts) {
  FrameTable frames(2, kCounts, EvictionRule::kLeastRecent);
  const int first = frames.take({0, 0}, 0);
  frames.take({0, 1}, 0);
  EXPECT_EQ(frames.take({0, 2}, 0), -1);
  EXPECT_EQ(frames.num_pinned(), 2);
  frames.pin(first);
  frames.unpin(first);
  EXPECT_EQ(frames.take({0, 2}, 0), -1) << "pinned twice, let go once";
  frames.unpin(first);
  EXPECT_EQ(frames.take({0, 2}, 0), first);
  EXPECT_EQ(frames.find({0, 0}), -1);
}

TEST(FrameTable, DropsAFrame) {
  FrameTable frames(1, kCounts, EvictionRule::kLeastFrequent);
  const int frame = frames.take({1, 3}, 1);
  frames.unpin(frame);
  frames.drop(frame);
  EXPECT_EQ(frames.find({1, 3}), -1);
  EXPECT_EQ(frames.take({2, 0}, 2), frame);
}

TEST(EvictionPolicy, LeastRecentGivesUpWhatWasUnusedLongest) {
  FrameTable frames(2, kCounts, EvictionRule::kLeastRecent);
  EXPECT_FALSE(use(frames, {0, 0}));
  EXPECT_FALSE(use(frames, {0, 1}));
  EXPECT_TRUE(use(frames, {0, 0}));
  EXPECT_FALSE(use(frames, {0, 2}));  // in the place of 1
  EXPECT_TRUE(use(frames, {0, 0}));
  EXPECT_FALSE(use(frames, {0, 1}));
}

TEST(EvictionPolicy, LeastFrequentKeepsWhatWasUsedOften) {
  FrameTable frames(2, kCounts, EvictionRule::kLeastFrequent);
  for (int i = 0; i < 3; ++i) use(frames, {0, 0});
  use(frames, {0, 1});
  EXPECT_FALSE(use(frames, {0, 2}));  // in the place of 1, though 0 is unused for longer
  EXPECT_TRUE(use(frames, {0, 0}));
  EXPECT_FALSE(use(frames, {0, 1}));  // both had one use: in the place of 2, unused for longer
}

TEST(EvictionPolicy, LayerDistanceKeepsWhatComesSoon) {
  const auto policy = make_eviction_policy(EvictionRule::kLayerDistance, kCounts);
  // Uses 4, 3, 2; while layer 0 runs, layers 1 and 2 are 1 and 2 ahead, layer 0 is 3 ahead: worth 4/3, 3, 1.
  for (int i = 0; i < 4; ++i) policy->note_use({0, 0});
  for (int i = 0; i < 3; ++i) policy->note_use({1, 0});
  for (int i = 0; i < 2; ++i) policy->note_use({2, 0});
  const std::vector<ExpertId> all = {{0, 0}, {1, 0}, {2, 0}};
  EXPECT_EQ(policy->choose(all, 0), 2u);
  // While layer 1 runs they are 2, 3 and 1 ahead: worth 2, 1, 2.
  EXPECT_EQ(policy->choose(all, 1), 1u);
  // While layer 2 runs they are 1, 2 and 3 ahead: worth 4, 3/2, 2/3.
  EXPECT_EQ(policy->choose(all, 2), 2u);
}

TEST(EvictionPolicy, TakesOneOfAnyThatWereNeverUsed) {
  for (const EvictionRule rule : {EvictionRule::kLeastRecent, EvictionRule::kLeastFrequent, EvictionRule::kLayerDistance}) {
    const std::vector<ExpertId> one = {{2, 3}};
    EXPECT_EQ(make_eviction_policy(rule, kCounts)->choose(one, 2), 0u);
  }
}

}  // namespace
}  // namespace skipper

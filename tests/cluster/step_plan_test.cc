#include "cluster/step_plan.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace skipper {
namespace {

StepPlan full_plan() {
  StepPlan plan;
  plan.step = 41;
  plan.kind = StepKind::kRun;
  plan.level_table_version = 3;
  plan.placement_version = 5;
  plan.experts = ExpertSet::kReference;
  plan.expert_order = {.version = 3, .policy = 1, .staged_version = 5, .staged_policy = kPostedPolicy, .extra_bytes = 1ull << 40,
                       .is_freeing = true};
  plan.posted_plan = "a plan";
  plan.guard_term = 11;
  plan.shape = {.most_rows = 16, .most_logit_rows = 2, .is_decode = true, .slot_rows = 12};
  plan.ranks.resize(3);
  plan.ranks[0].released = {7, 8};
  plan.ranks[0].admission_bytes = {100};
  plan.ranks[0].sequences.push_back({.sequence_id = 9, .start = 4, .num_tokens = 16, .sample = true, .new_blocks = {1, 2}});
  plan.ranks[2].sequences.push_back({.sequence_id = 10, .start = 0, .num_tokens = 3, .sample = false, .new_blocks = {}});
  plan.ranks[2].sequences.push_back({.sequence_id = 11, .start = 5, .num_tokens = 1, .sample = true, .new_blocks = {}});
  return plan;
}

std::vector<std::byte> encoded(const StepPlan& plan) {
  std::vector<std::byte> bytes;
  encode(plan, bytes);
  return bytes;
}

TEST(StepPlan, SurvivesTheWayBetweenRanks) {
  const StepPlan copy = decode_step_plan(encoded(full_plan()));
  EXPECT_EQ(copy.step, 41);
  EXPECT_EQ(copy.kind, StepKind::kRun);
  EXPECT_EQ(copy.level_table_version, 3u);
  EXPECT_EQ(copy.placement_version, 5u);
  EXPECT_EQ(copy.experts, ExpertSet::kReference);
  EXPECT_EQ(copy.expert_order.staged_version, 5u);
  EXPECT_EQ(copy.expert_order.staged_policy, kPostedPolicy);
  EXPECT_EQ(copy.expert_order.extra_bytes, 1ull << 40);
  EXPECT_TRUE(copy.expert_order.is_freeing);
  EXPECT_EQ(copy.posted_plan, "a plan");
  EXPECT_EQ(copy.guard_term, 11u);
  EXPECT_EQ(copy.shape.most_rows, 16);
  EXPECT_EQ(copy.shape.most_logit_rows, 2);
  EXPECT_TRUE(copy.shape.is_decode);
  EXPECT_EQ(copy.shape.slot_rows, 12);
  ASSERT_EQ(copy.ranks.size(), 3u);
  EXPECT_EQ(copy.ranks[0].released, (std::vector<uint64_t>{7, 8}));
  EXPECT_EQ(copy.ranks[0].admission_bytes, (std::vector<uint64_t>{100}));
  ASSERT_EQ(copy.ranks[0].sequences.size(), 1u);
  EXPECT_EQ(copy.ranks[0].sequences[0].new_blocks, (std::vector<int32_t>{1, 2}));
  EXPECT_TRUE(copy.ranks[0].sequences[0].sample);
  EXPECT_TRUE(copy.ranks[1].sequences.empty());
  EXPECT_EQ(copy.ranks[2].num_tokens(), 4);
}

TEST(StepPlan, EveryTruncationIsRefused) {
  std::vector<std::byte> bytes = encoded(full_plan());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THROW(decode_step_plan(std::span(bytes).first(length)), CommError) << length;
  }
  bytes.push_back({});
  EXPECT_THROW(decode_step_plan(bytes), CommError);
}

TEST(StepPlan, BrokenBytesAreRefusedWithoutTakingMemoryForTheirCounts) {
  std::vector<std::byte> bytes = encoded(full_plan());
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::vector<std::byte> broken = bytes;
    broken[i] = std::byte{0xff};
    try {
      decode_step_plan(broken);  // a changed step number or token count is still a plan
    } catch (const CommError&) {
    }
  }
  bytes[0] = std::byte{0};
  EXPECT_THROW(decode_step_plan(bytes), CommError) << "the magic was not checked";
}

}  // namespace
}  // namespace skipper

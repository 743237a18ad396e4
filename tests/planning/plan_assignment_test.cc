#include "planning/plan_assignment.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace skipper {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const WeightFormat kInt8{WeightKind::kInt8, 64}, kInt4{WeightKind::kInt4Asymmetric, 32};

// One layer of three experts: 2 and 0 on rank 0, 1 on rank 1.
ExpertPlan some_plan() {
  ExpertPlan plan;
  plan.subject = {"0123456789abcdef", 1, 3, 2};
  plan.copies = {{.id = {0, 2}, .rank = 0, .slot = 0, .format = kInt8, .hash = "00ff00ff00ff00ff"},
                 {.id = {0, 0}, .rank = 0, .slot = 1, .format = kInt4},
                 {.id = {0, 1}, .rank = 1, .slot = 0, .format = {}}};
  plan.ranks.resize(2);
  for (RankPlanMemory& rank : plan.ranks) {
    for (const MemoryTier tier : {MemoryTier::kDevice, MemoryTier::kHost, MemoryTier::kDisk}) rank.tiers[tier] = {};
  }
  check_expert_plan(plan, "some plan");
  return plan;
}

std::string error_of(const ExpertPlan& plan, int rank, DeviceKind kind) {
  try {
    assignment_of(plan, rank, kind, "plan.json");
  } catch (const InvalidFile& error) {
    return error.what();
  }
  return "";
}

TEST(PlanAssignment, HoldsWhatTheRankOwnsAndWhereAllOthersAre) {
  const ExpertAssignment first = assignment_of(some_plan(), 0, DeviceKind::kHost, "plan.json");
  EXPECT_EQ(first.placement.experts_of(0, 0), (std::vector<int32_t>{2, 0}));
  EXPECT_EQ(first.placement.experts_of(1, 0), (std::vector<int32_t>{1}));
  ASSERT_EQ(first.slots.size(), 1u);
  ASSERT_EQ(first.slots[0].size(), 2u);
  EXPECT_EQ(first.at(0, 0).format, kInt8);
  EXPECT_EQ(first.at(0, 0).hash, "00ff00ff00ff00ff");
  EXPECT_EQ(first.at(0, 1).format, kInt4);
  EXPECT_EQ(assignment_of(some_plan(), 1, DeviceKind::kHost, "plan.json").slots[0].size(), 1u);
}

TEST(PlanAssignment, TellsTheTiersOfAGpu) {
  ExpertPlan plan = some_plan();
  plan.copies[0].tier = MemoryTier::kDevice;
  plan.copies[0].runs_on = ComputePlace::kDevice;
  plan.copies[1].runs_on = ComputePlace::kDevice;
  const ExpertAssignment rank_0 = assignment_of(plan, 0, DeviceKind::kCuda, "plan.json");
  EXPECT_EQ(rank_0.gpu_tiers().tiers,
            (std::vector<std::vector<GpuExpertTier>>{{GpuExpertTier::kDevice, GpuExpertTier::kHostStreamed}}));
  EXPECT_EQ(assignment_of(plan, 1, DeviceKind::kCuda, "plan.json").at(0, 0).tier, GpuExpertTier::kHostComputed);
}

TEST(PlanAssignment, RefusesASecondCopyOfAnExpert) {
  ExpertPlan plan = some_plan();
  plan.copies.push_back({.id = {0, 0}, .rank = 1, .slot = 1, .format = kInt4});
  check_expert_plan(plan, "some plan");
  EXPECT_THAT(error_of(plan, 0, DeviceKind::kHost), AllOf(HasSubstr("plan.json: expert 0 of MoE layer 0"), HasSubstr("rank 1"),
                                                          HasSubstr("a further copy")));
}

TEST(PlanAssignment, PutsShadowsBehindWhatTheRankOwns) {
  ExpertPlan plan = some_plan();
  plan.copies.push_back({.id = {0, 0}, .rank = 1, .slot = 1, .format = kInt4, .role = CopyRole::kShadow});
  check_expert_plan(plan, "some plan");
  const ExpertAssignment assignment = assignment_of(plan, 1, DeviceKind::kHost, "plan.json");
  EXPECT_TRUE(assignment.placement.has_shadows());
  EXPECT_EQ(assignment.placement.experts_of(1, 0), (std::vector<int32_t>{1, 0}));
  EXPECT_EQ(assignment.at(0, 1).format, kInt4);
  EXPECT_EQ(assignment.placement.owner({0, 0}).rank, 0);
  EXPECT_GT(assignment.placement.shadow_errors(1, 0)[0], 0.0f);
  EXPECT_LT(assignment.placement.shadow_errors(1, 0)[0], 0.1f);
  EXPECT_THAT(error_of(plan, 1, DeviceKind::kCuda), HasSubstr("GPUs use none"));
  EXPECT_FALSE(assignment_of(some_plan(), 1, DeviceKind::kHost, "plan.json").placement.has_shadows());
}

TEST(PlanAssignment, RefusesServingCopiesBehindShadows) {
  ExpertPlan plan = some_plan();
  plan.copies[2].slot = 1;
  plan.copies.push_back({.id = {0, 0}, .rank = 1, .slot = 0, .format = kInt4, .role = CopyRole::kShadow});
  check_expert_plan(plan, "some plan");
  EXPECT_THAT(error_of(plan, 0, DeviceKind::kHost), AllOf(HasSubstr("expert 1 of MoE layer 0"), HasSubstr("after a shadow")));
}

TEST(PlanAssignment, RefusesOnlyWhereItIsWhatTheRankCannotHold) {
  ExpertPlan plan = some_plan();
  plan.copies[2].tier = MemoryTier::kDisk;
  EXPECT_THAT(error_of(plan, 1, DeviceKind::kHost), AllOf(HasSubstr("expert 1 of MoE layer 0"), HasSubstr("disk of rank 1")));
  EXPECT_EQ(error_of(plan, 0, DeviceKind::kHost), "");
  plan = some_plan();
  plan.copies[0].runs_on = ComputePlace::kDevice;
  EXPECT_THAT(error_of(plan, 0, DeviceKind::kHost), HasSubstr("--device cuda"));
  EXPECT_EQ(error_of(plan, 0, DeviceKind::kCuda), "");
}

}  // namespace
}  // namespace skipper

#include "engine/expert_switch.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"

namespace skipper {
namespace {

constexpr std::chrono::milliseconds kLong{60'000};
constexpr std::chrono::milliseconds kNoTime{0};

std::vector<PolicyTraits> two_policies() {
  return {{.name = "quality", .expert_bits = 8.0}, {.name = "small", .expert_bits = 4.0}};
}

StagingReport report_of(const ExpertOrder& order, StagingState state) {
  return {.version = order.staged_version, .state = state, .reason = {}, .moved_bytes = 100, .seconds = 0.5};
}

// One step on all ranks, each of which has come so far.
ExpertOrder step(ExpertSwitch& experts, int64_t number, const std::vector<StagingState>& ranks) {
  const ExpertOrder order = experts.order();
  std::vector<StagingReport> reports;
  if (order.is_staging()) {
    for (const StagingState state : ranks) reports.push_back(report_of(order, state));
  }
  experts.end_step(number, order, reports);
  return order;
}

TEST(ExpertSwitch, ChangesInTheStepAfterTheLastRankIsReady) {
  ExpertSwitch experts(two_policies(), 0);
  EXPECT_FALSE(experts.order().is_staging());
  const uint64_t request = experts.request("small", kLong);
  EXPECT_EQ(step(experts, 7, {StagingState::kReady, StagingState::kUnderWay}).version, kFirstExpertVersion);
  EXPECT_EQ(experts.state().ranks_ready, 1);
  EXPECT_EQ(step(experts, 8, {StagingState::kReady, StagingState::kReady}).version, kFirstExpertVersion);
  EXPECT_EQ(experts.state().policy, "quality") << "no step has run on the new experts yet";
  const ExpertOrder changed = step(experts, 9, {});
  EXPECT_EQ(changed.version, kFirstExpertVersion + 1);
  EXPECT_EQ(changed.policy, 1);
  EXPECT_FALSE(changed.is_staging());
  const SwitchState state = experts.wait_until_ended(request);
  EXPECT_EQ(state.policy, "small");
  EXPECT_EQ(state.last.step, 9);
  EXPECT_EQ(state.last.moved_bytes, 200);
  EXPECT_EQ(state.last.failure, "");
  EXPECT_EQ(state.num_switches, 1);
  EXPECT_EQ(state.moved_bytes, 200);
  EXPECT_EQ(state.staging_seconds, 0.5);
}

TEST(ExpertSwitch, KnowsThePolicyOfAVersionBeforeTheFirstStepOnIt) {
  ExpertSwitch experts(two_policies(), 0);
  experts.request("small", kLong);
  step(experts, 7, {StagingState::kReady});
  ASSERT_EQ(experts.order().version, kFirstExpertVersion + 1);
  EXPECT_EQ(experts.policy_of(kFirstExpertVersion).name, "quality");
  EXPECT_EQ(experts.policy_of(kFirstExpertVersion + 1).name, "small");
  EXPECT_EQ(experts.policy_of(kFirstExpertVersion + 1).expert_bits, 4.0);
  EXPECT_EQ(experts.policy_of(kFirstExpertVersion + 2).name, "");
  EXPECT_EQ(experts.policy_of(kReferenceVersion).name, "reference");
  ASSERT_EQ(experts.versions().size(), 2u);
  EXPECT_EQ(experts.versions()[1].step, 8);
}

TEST(ExpertSwitch, GivesUpOnAllRanksWhenOneFails) {
  ExpertSwitch experts(two_policies(), 0);
  const uint64_t request = experts.request("small", kLong);
  const ExpertOrder order = experts.order();
  StagingReport failed = report_of(order, StagingState::kFailed);
  failed.set_reason("no memory");
  experts.end_step(3, order, std::vector{report_of(order, StagingState::kReady), failed});
  const SwitchState state = experts.wait_until_ended(request);
  EXPECT_EQ(state.last.failure, "rank 1: no memory");
  EXPECT_EQ(state.policy, "quality");
  EXPECT_EQ(state.num_failures, 1);
  EXPECT_FALSE(experts.order().is_staging());
  experts.request("small", kLong);
  EXPECT_EQ(experts.order().staged_version, kFirstExpertVersion + 2) << "a version is never ordered again";
}

TEST(ExpertSwitch, GivesUpWhenTheDeadlineHasPassed) {
  ExpertSwitch experts(two_policies(), 0);
  experts.request("small", kNoTime);
  step(experts, 3, {StagingState::kUnderWay});
  EXPECT_NE(experts.state().last.failure.find("were not ready within 0 ms"), std::string::npos);
  EXPECT_FALSE(experts.order().is_staging());
}

// The engine takes its order before the step, a client asks during it.
TEST(ExpertSwitch, IgnoresAStepThatBeganBeforeTheRequest) {
  ExpertSwitch experts(two_policies(), 1);
  const ExpertOrder before = experts.order();
  experts.request("quality", kNoTime);
  experts.end_step(3, before, {});
  EXPECT_TRUE(experts.order().is_staging());
}

TEST(ExpertSwitch, RefusesUnknownPoliciesAndASecondRequestAtOnce) {
  ExpertSwitch experts(two_policies(), 0);
  EXPECT_THROW(experts.request("fast", kLong), InvalidRequest);
  const uint64_t same = experts.request("quality", kLong);
  EXPECT_EQ(experts.wait_until_ended(same).num_switches, 0);
  const uint64_t waiting = experts.request("small", kLong);
  EXPECT_THROW(experts.request("quality", kLong), Cancelled);
  experts.close();
  EXPECT_THROW(experts.wait_until_ended(waiting), Cancelled);
}

TEST(StagingReport, CutsAReasonThatIsTooLong) {
  StagingReport report;
  report.set_reason(std::string(1000, 'x'));
  EXPECT_EQ(report.reason_text().size(), report.reason.size() - 1);
  report.set_reason("");
  EXPECT_EQ(report.reason_text(), "");
}

}  // namespace
}  // namespace skipper

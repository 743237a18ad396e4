#include "engine/expert_switch.h"

#include <gtest/gtest.h>

#include <thread>
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
  return {.version = order.staged_version, .state = state, .reason = {}, .moved_bytes = 100, .seconds = 0.5,
          .freed_seconds = 0.25, .memory = {.before = 1000, .with_both = 1100, .after = 900}};
}

// One step on all ranks, each of which has come so far.
ExpertOrder step(ExpertSwitch& experts, int64_t number, const std::vector<StagingState>& ranks, const PolicyFloor& floor = {}) {
  const ExpertOrder order = experts.order();
  std::vector<StagingReport> reports;
  if (order.wants_reports()) {
    for (const StagingState state : ranks) reports.push_back(report_of(order, state));
  }
  experts.end_step(number, order, reports, floor);
  return order;
}

TEST(ExpertSwitch, ChangesInTheStepAfterTheLastRankIsReady) {
  ExpertSwitch experts(two_policies(), 0);
  EXPECT_FALSE(experts.order().is_staging());
  const uint64_t request = experts.request({.policy = "small", .deadline = kLong});
  EXPECT_EQ(step(experts, 7, {StagingState::kReady, StagingState::kUnderWay}).version, kFirstExpertVersion);
  EXPECT_EQ(experts.state().ranks_ready, 1);
  EXPECT_EQ(step(experts, 8, {StagingState::kReady, StagingState::kReady}).version, kFirstExpertVersion);
  EXPECT_EQ(experts.state().policy, "quality") << "no step has run on the new experts yet";
  const ExpertOrder changed = step(experts, 9, {});
  EXPECT_EQ(changed.version, kFirstExpertVersion + 1);
  EXPECT_EQ(changed.policy, 1);
  EXPECT_FALSE(changed.is_staging());
  EXPECT_EQ(experts.state().policy, "small");
  EXPECT_TRUE(experts.is_under_way()) << "the old experts are still there";
  EXPECT_TRUE(step(experts, 10, {StagingState::kFreed, StagingState::kUnderWay}).is_freeing);
  EXPECT_TRUE(experts.is_under_way());
  step(experts, 11, {StagingState::kFreed, StagingState::kFreed});
  EXPECT_FALSE(experts.order().wants_reports());
  const SwitchState state = experts.wait_until_ended(request);
  EXPECT_EQ(state.policy, "small");
  EXPECT_EQ(state.last.step, 9);
  EXPECT_EQ(state.last.freed_seconds, 0.25);
  ASSERT_EQ(state.last.memory.size(), 2u);
  EXPECT_EQ(state.last.memory[1].after, 900);
  EXPECT_EQ(state.last.moved_bytes, 200);
  EXPECT_EQ(state.last.failure, "");
  EXPECT_EQ(state.num_switches, 1);
  EXPECT_EQ(state.moved_bytes, 200);
  EXPECT_EQ(state.staging_seconds, 0.5);
}

TEST(ExpertSwitch, KnowsThePolicyOfAVersionBeforeTheFirstStepOnIt) {
  ExpertSwitch experts(two_policies(), 0);
  experts.request({.policy = "small", .deadline = kLong});
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
  const uint64_t request = experts.request({.policy = "small", .deadline = kLong});
  const ExpertOrder order = experts.order();
  StagingReport failed = report_of(order, StagingState::kFailed);
  failed.set_reason("no memory");
  experts.end_step(3, order, std::vector{report_of(order, StagingState::kReady), failed});
  const SwitchState state = experts.wait_until_ended(request);
  EXPECT_EQ(state.last.failure, "rank 1: no memory");
  EXPECT_EQ(state.policy, "quality");
  EXPECT_EQ(state.num_failures, 1);
  EXPECT_FALSE(experts.order().is_staging());
  experts.request({.policy = "small", .deadline = kLong});
  EXPECT_EQ(experts.order().staged_version, kFirstExpertVersion + 2) << "a version is never ordered again";
}

TEST(ExpertSwitch, GivesUpWhenTheDeadlineHasPassed) {
  ExpertSwitch experts(two_policies(), 0);
  experts.request({.policy = "small", .deadline = kNoTime});
  step(experts, 3, {StagingState::kUnderWay});
  EXPECT_NE(experts.state().last.failure.find("were not ready within 0 ms"), std::string::npos);
  EXPECT_FALSE(experts.order().is_staging());
}

TEST(ExpertSwitch, EndsWithoutMemoryWhenTheDeadlineComesBeforeItIsFreed) {
  ExpertSwitch experts(two_policies(), 0);
  const uint64_t request = experts.request({.policy = "small", .deadline = std::chrono::milliseconds(50)});
  step(experts, 1, {StagingState::kReady});
  step(experts, 2, {});
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  step(experts, 3, {StagingState::kUnderWay});
  const SwitchState state = experts.wait_until_ended(request);
  EXPECT_EQ(state.policy, "small");
  EXPECT_EQ(state.last.failure, "");
  EXPECT_FALSE(state.last.freed_seconds.has_value());
  EXPECT_TRUE(state.last.memory.empty());
}

TEST(ExpertSwitch, WaitsForRequestsWhoseTierNeedsABetterPolicy) {
  ExpertSwitch experts(two_policies(), 0);
  const PolicyFloor gold{.lowest = 0, .tier = "gold"}, silver{.lowest = 1, .tier = "silver"};
  EXPECT_EQ(experts.refusal(gold), "");
  experts.request({.policy = "small", .deadline = kLong});
  EXPECT_EQ(step(experts, 1, {StagingState::kReady}, gold).version, kFirstExpertVersion);
  EXPECT_EQ(experts.state().waits_for_tier, "gold");
  EXPECT_TRUE(experts.order().is_staging());
  EXPECT_NE(experts.refusal(gold).find("service_tier gold needs policy quality, but the server is about to change to small"),
            std::string::npos);
  EXPECT_EQ(experts.refusal(silver), "");
  EXPECT_EQ(experts.refusal({}), "");
  step(experts, 2, {StagingState::kReady}, silver);
  EXPECT_EQ(experts.order().version, kFirstExpertVersion + 1);
  EXPECT_NE(experts.refusal(gold).find("but small serves"), std::string::npos);
  EXPECT_EQ(experts.refusal(silver), "");
}

TEST(ExpertSwitch, GivesUpWhenRequestsOfATierDoNotEnd) {
  ExpertSwitch experts(two_policies(), 0);
  experts.request({.policy = "small", .deadline = kNoTime});
  step(experts, 1, {StagingState::kReady}, {.lowest = 0, .tier = "gold"});
  EXPECT_EQ(experts.state().last.failure,
            "requests of service_tier gold, whose lowest policy is quality, did not end within 0 ms; give more deadline_seconds");
  EXPECT_EQ(experts.refusal({.lowest = 0, .tier = "gold"}), "");
}

TEST(ExpertSwitch, RunningRequestsDoNotHoldASwitchToABetterPolicy) {
  ExpertSwitch experts(two_policies(), 1);
  EXPECT_NE(experts.refusal({.lowest = 0, .tier = "gold"}), "");
  experts.request({.policy = "quality", .deadline = kLong});
  step(experts, 1, {StagingState::kReady}, {.lowest = 1, .tier = "silver"});
  EXPECT_EQ(experts.order().version, kFirstExpertVersion + 1);
  EXPECT_EQ(experts.refusal({.lowest = 0, .tier = "gold"}), "");
}

PostedPlan posted(double loss, const std::string& profile) {
  return {.policy = {.name = "memory:1G", .expert_bits = 5.0, .loss = loss, .profile = profile}, .text = "plan"};
}

TEST(ExpertSwitch, GivesThePostedPlanToTheFirstStepThatOrdersIt) {
  ExpertSwitch experts(two_policies(), 0);
  const ExpertOrder before = experts.order();
  experts.request({.policy = "", .deadline = kLong, .extra_bytes = 7, .plan = posted(0.1, "measured")});
  EXPECT_EQ(experts.take_posted_plan(before), "") << "an order from before the request stages nothing";
  const ExpertOrder order = experts.order();
  EXPECT_EQ(order.staged_policy, kPostedPolicy);
  EXPECT_EQ(order.extra_bytes, 7u);
  EXPECT_EQ(experts.take_posted_plan(order), "plan");
  EXPECT_EQ(experts.take_posted_plan(order), "");
  step(experts, 1, {StagingState::kReady});
  step(experts, 2, {});
  EXPECT_EQ(experts.state().policy, "memory:1G");
  EXPECT_EQ(experts.state().predicted_loss, 0.1);
  EXPECT_EQ(experts.policy_of(kFirstExpertVersion + 1).expert_bits, 5.0);
}

TEST(ExpertSwitch, PutsPostedPlansInOrderByTheLossesOfTheSameProfile) {
  const PolicyFloor gold{.lowest = 0, .tier = "gold"}, silver{.lowest = 1, .tier = "silver"};
  const auto refused = [&](double loss, const std::string& profile, const PolicyFloor& floor) {
    std::vector<PolicyTraits> policies = two_policies();
    policies[0].loss = 0.01;
    policies[1].loss = 0.05;
    for (PolicyTraits& policy : policies) policy.profile = "measured";
    ExpertSwitch experts(policies, 0);
    experts.request({.policy = "", .deadline = kLong, .plan = posted(loss, profile)});
    return !experts.refusal(floor).empty();
  };
  EXPECT_FALSE(refused(0.01, "measured", gold));
  EXPECT_TRUE(refused(0.02, "measured", gold));
  EXPECT_FALSE(refused(0.02, "measured", silver));
  EXPECT_TRUE(refused(0.06, "measured", silver));
  EXPECT_TRUE(refused(0.001, "analytic", silver)) << "losses by different profiles do not compare";
}

// The engine takes its order before the step, a client asks during it.
TEST(ExpertSwitch, IgnoresAStepThatBeganBeforeTheRequest) {
  ExpertSwitch experts(two_policies(), 1);
  const ExpertOrder before = experts.order();
  experts.request({.policy = "quality", .deadline = kNoTime});
  experts.end_step(3, before, {});
  EXPECT_TRUE(experts.order().is_staging());
}

TEST(ExpertSwitch, RefusesUnknownPoliciesAndASecondRequestAtOnce) {
  ExpertSwitch experts(two_policies(), 0);
  EXPECT_THROW(experts.request({.policy = "fast", .deadline = kLong}), InvalidRequest);
  const uint64_t same = experts.request({.policy = "quality", .deadline = kLong});
  EXPECT_EQ(experts.wait_until_ended(same).num_switches, 0);
  const uint64_t waiting = experts.request({.policy = "small", .deadline = kLong});
  EXPECT_THROW(experts.request({.policy = "quality", .deadline = kLong}), Cancelled);
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

// From order to freed memory.
void run_switch(ExpertSwitch& experts, int64_t first_step) {
  step(experts, first_step, {StagingState::kReady});
  step(experts, first_step + 1, {});
  step(experts, first_step + 2, {StagingState::kFreed});
  ASSERT_FALSE(experts.is_under_way());
}

TEST(ExpertSwitch, ReturnsToTheLastPolicyThatServedAndWasNotWrong) {
  std::vector<PolicyTraits> policies = two_policies();
  policies.push_back({.name = "tiny", .expert_bits = 2.0});
  ExpertSwitch experts(policies, 0);
  experts.request({.policy = "small", .deadline = kLong});
  EXPECT_FALSE(experts.order().mends);
  run_switch(experts, 1);
  experts.request({.policy = "tiny", .deadline = kLong});
  run_switch(experts, 4);
  EXPECT_EQ(experts.return_to_last_good(kLong), "small");
  EXPECT_TRUE(experts.order().mends);
  run_switch(experts, 7);
  EXPECT_FALSE(experts.order().mends);
  EXPECT_EQ(experts.return_to_last_good(kLong), "quality") << "tiny is known to be wrong, and now small is";
  run_switch(experts, 10);
  EXPECT_EQ(experts.return_to_last_good(kLong), "");
  EXPECT_FALSE(experts.is_under_way());
  experts.request({.policy = "small", .deadline = kLong});
  run_switch(experts, 13);
  experts.request({.policy = "tiny", .deadline = kLong});
  run_switch(experts, 16);
  EXPECT_EQ(experts.return_to_last_good(kLong), "small") << "an operator has trusted it again";
}

TEST(ExpertSwitch, TriesNoPolicyAgainThatCouldNotBeMadeAgain) {
  ExpertSwitch experts(two_policies(), 0);
  experts.request({.policy = "small", .deadline = kLong});
  run_switch(experts, 1);
  ASSERT_EQ(experts.return_to_last_good(kLong), "quality");
  step(experts, 4, {StagingState::kFailed});
  EXPECT_FALSE(experts.is_under_way());
  EXPECT_EQ(experts.return_to_last_good(kLong), "");
}

TEST(ExpertSwitch, MakesThePolicyThatServesAgainWhenItMends) {
  ExpertSwitch experts(two_policies(), 0);
  experts.request({.policy = "quality", .deadline = kLong, .mends = true});
  EXPECT_TRUE(experts.order().is_staging());
  run_switch(experts, 1);
  EXPECT_EQ(experts.state().version, kFirstExpertVersion + 1);
}

}  // namespace
}  // namespace skipper

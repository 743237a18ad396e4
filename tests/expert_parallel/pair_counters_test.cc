#include "expert_parallel/pair_counters.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/expert_parallel/frozen_routing.h"

namespace skipper {
namespace {

// A prompt's text and vision token, and a generated one.
TokenPolicies three_tokens() {
  TokenPolicies policies = TokenPolicies::defaults(3);
  policies.token_class.data<uint8_t>()[1] = static_cast<uint8_t>(TokenClass::kVision);
  policies.phase.data<uint8_t>()[2] = static_cast<uint8_t>(TokenPhase::kGenerated);
  return policies;
}

TEST(PairCounters, CountsPairsByLayerPhaseClassAndOutcome) {
  PairCounters counters(2);
  const Routing routed = routing_of({0, 1, 2, 3, 4, 5, 6, 7, kNoExpert}, 3);
  const Routing kept = routing_of({0, kNoExpert, 2, kNoExpert, kNoExpert, kNoExpert, 6, 7, kNoExpert}, 3);
  counters.count(1, three_tokens(), routed, kept);
  EXPECT_EQ(counters.at(1, TokenPhase::kPrompt, TokenClass::kText, PairOutcome::kRun), 2);
  EXPECT_EQ(counters.at(1, TokenPhase::kPrompt, TokenClass::kText, PairOutcome::kSkipped), 1);
  EXPECT_EQ(counters.at(1, TokenPhase::kPrompt, TokenClass::kVision, PairOutcome::kRun), 0);
  EXPECT_EQ(counters.at(1, TokenPhase::kPrompt, TokenClass::kVision, PairOutcome::kSkipped), 3);
  EXPECT_EQ(counters.at(1, TokenPhase::kGenerated, TokenClass::kText, PairOutcome::kRun), 2);
  EXPECT_EQ(counters.at(1, TokenPhase::kGenerated, TokenClass::kText, PairOutcome::kSkipped), 0);
  const auto all = counters.counts();
  EXPECT_EQ(std::accumulate(all.begin(), all.end(), int64_t{0}), 8) << "another layer or class was counted too";
}

TEST(PairCounters, CountsNothingSkippedWhenTheRoutingStays) {
  PairCounters counters(1);
  const Routing routed = routing_of({0, 1, 2, 3, 4, 5, 6, 7, kNoExpert}, 3);
  counters.count(0, three_tokens(), routed, routed);
  EXPECT_EQ(counters.at(0, TokenPhase::kPrompt, TokenClass::kVision, PairOutcome::kRun), 3);
  EXPECT_EQ(counters.at(0, TokenPhase::kGenerated, TokenClass::kText, PairOutcome::kRun), 2);
  EXPECT_EQ(counters.at(0, TokenPhase::kGenerated, TokenClass::kText, PairOutcome::kSkipped), 0);
  counters.count(0, TokenPolicies::defaults(0), routing_of({}, 3), routing_of({}, 3));
}

TEST(PairCounters, AStepIsTheDifferenceOfTwoSums) {
  PairCounters before(1);
  const Routing routed = routing_of({0, 1, 2, 3, 4, 5, 6, 7, 8}, 3);
  before.count(0, three_tokens(), routed, routed);
  PairCounters after = before;
  after.count(0, three_tokens(), routed, routed);
  after -= before;
  EXPECT_EQ(after.at(0, TokenPhase::kPrompt, TokenClass::kText, PairOutcome::kRun), 3);
  after += before;
  EXPECT_EQ(after.at(0, TokenPhase::kPrompt, TokenClass::kText, PairOutcome::kRun), 6);
  after.clear();
  EXPECT_EQ(after.at(0, TokenPhase::kPrompt, TokenClass::kText, PairOutcome::kRun), 0);
}

}  // namespace
}  // namespace skipper

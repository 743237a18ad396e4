#include "expert_parallel/skip_meter.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/expert_parallel/frozen_routing.h"

namespace skipper {
namespace {

LevelTable two_levels() {
  LevelTable levels = unskipped_levels(2);
  levels.levels.push_back(levels.levels[0]);
  levels.levels[1].tau = {0.5f, 0.5f};
  return levels;
}

// Gold, bronze and a protected token of the prompt, and a generated bronze one.
TokenPolicies four_tokens() {
  TokenPolicies policies = TokenPolicies::defaults(4);
  for (const int64_t t : {1, 2, 3}) policies.level.data<uint8_t>()[t] = 1;
  policies.token_class.data<uint8_t>()[2] = static_cast<uint8_t>(TokenClass::kProtected);
  policies.phase.data<uint8_t>()[3] = static_cast<uint8_t>(TokenPhase::kGenerated);
  return policies;
}

TEST(SkipMeter, CountsDecisionsOfTokensThatMayLosePairs) {
  const LevelTable levels = two_levels();
  const Routing routed = routing_of({0, 1, 2, 3, 4, 5, 6, 7}, 2);
  const Routing kept = routing_of({0, 1, 2, kNoExpert, 4, 5, kNoExpert, kNoExpert}, 2);
  SkipMeter meter(2);
  meter.add({.moe_layer = 1, .levels = levels, .policies = four_tokens(), .routed = routed, .kept = kept,
             .deciding_seconds = 4.0, .running_seconds = 10.0});
  const SkipCost& prompt = meter.costs()[2];
  const SkipCost& generated = meter.costs()[3];
  EXPECT_EQ(prompt.pairs_run, 5);
  EXPECT_EQ(prompt.pairs_decided, 2);
  EXPECT_EQ(prompt.pairs_skipped, 1);
  EXPECT_EQ(generated.pairs_run, 0);
  EXPECT_EQ(generated.pairs_decided, 2);
  EXPECT_EQ(generated.pairs_skipped, 2);
  EXPECT_EQ(prompt.deciding_seconds, 2.0);
  EXPECT_EQ(generated.deciding_seconds, 2.0);
  EXPECT_EQ(prompt.running_seconds, 10.0);
  EXPECT_EQ(generated.running_seconds, 0.0);
  EXPECT_EQ(meter.costs()[0].pairs_run, 0);
}

TEST(SkipMeter, ChargesNothingForDecidingWhereNobodyMaySkip) {
  LevelTable levels = two_levels();
  levels.levels[1].exempt_layers = {std::vector<uint8_t>{1, 0}, std::vector<uint8_t>{1, 0}};
  const Routing routed = routing_of({0, 1, 2, 3, 4, 5, 6, 7}, 2);
  const TokenPolicies policies = four_tokens(), nobody = TokenPolicies::defaults(0);
  const Routing nothing = routing_of({}, 2);
  SkipMeter meter(2);
  meter.add({.moe_layer = 0, .levels = levels, .policies = policies, .routed = routed, .kept = routed,
             .deciding_seconds = 4.0, .running_seconds = 8.0});
  meter.add({.moe_layer = 1, .levels = levels, .policies = nobody, .routed = nothing, .kept = nothing,
             .deciding_seconds = 4.0, .running_seconds = 8.0});
  EXPECT_EQ(meter.costs()[0].deciding_seconds + meter.costs()[1].deciding_seconds, 0.0);
  EXPECT_EQ(meter.costs()[0].running_seconds + meter.costs()[1].running_seconds, 8.0);
  EXPECT_EQ(meter.costs()[0].pairs_decided + meter.costs()[1].pairs_decided, 0);
  EXPECT_EQ(meter.costs()[2].running_seconds, 0.0) << "waiting for other ranks is no pair's time";
}

}  // namespace
}  // namespace skipper

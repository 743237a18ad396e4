#include "audit/load_window.h"

#include <gtest/gtest.h>

namespace skipper {
namespace {

constexpr ExpertLoadShape kShape{.num_moe_layers = 2, .num_experts = 4};

ExpertPlacement two_ranks() { return ExpertPlacement::contiguous({.num_moe_layers = 2, .num_experts = 4, .world_size = 2}); }

// Sums in which only these experts of one layer and class have run.
std::vector<int64_t> sums_of(int moe_layer, TokenClass token_class, const std::vector<int64_t>& experts) {
  std::vector<int64_t> sums(kShape.num_counts(), 0);
  std::copy(experts.begin(), experts.end(), sums.data() + kShape.first_of(moe_layer, static_cast<size_t>(token_class)));
  return sums;
}

LoadBalance find(const std::vector<ClassBalance>& balances, int moe_layer, std::string_view token_class) {
  for (const ClassBalance& entry : balances) {
    if (entry.moe_layer == moe_layer && entry.token_class == token_class) return entry.balance;
  }
  ADD_FAILURE() << "no balance of layer " << moe_layer << " and class " << token_class;
  return {};
}

TEST(ExpertLoad, CountsPairsThatRanByLayerClassAndExpert) {
  ExpertLoad load(kShape);
  TokenPolicies policies = TokenPolicies::defaults(3);
  policies.token_class.data<uint8_t>()[1] = static_cast<uint8_t>(TokenClass::kVision);
  Routing kept{.expert_ids = Tensor::empty({3, 2}, DType::kI32), .expert_weights = Tensor::zeros({3, 2}, DType::kF32)};
  const std::vector<int32_t> ids = {0, 3, kNoExpert, 3, 3, kNoExpert};
  std::copy(ids.begin(), ids.end(), kept.expert_ids.data<int32_t>());
  load.count(1, policies, kept);
  auto expected = sums_of(1, TokenClass::kText, {1, 0, 0, 2});
  expected[kShape.first_of(1, static_cast<size_t>(TokenClass::kVision)) + 3] = 1;
  EXPECT_EQ(std::vector<int64_t>(load.counts().begin(), load.counts().end()), expected);
}

TEST(ExpertLoad, TakesABatchWithoutTokens) {
  ExpertLoad load(kShape);
  const Routing none{.expert_ids = Tensor::empty({0, 2}, DType::kI32), .expert_weights = Tensor::empty({0, 2}, DType::kF32)};
  load.count(0, TokenPolicies::defaults(0), none);
  EXPECT_EQ(std::vector<int64_t>(load.counts().begin(), load.counts().end()), std::vector<int64_t>(kShape.num_counts(), 0));
}

TEST(LoadWindow, BeforeAnyStepEverythingIsEven) {
  const LoadWindow window(kShape, 10);
  EXPECT_FALSE(window.is_full());
  EXPECT_DOUBLE_EQ(window.rank_max_over_mean(two_ranks()), 1.0);
  for (const ClassBalance& entry : window.balances(two_ranks())) EXPECT_EQ(entry.balance.num_pairs, 0);
}

TEST(LoadWindow, TellsClassesAndLayersApart) {
  LoadWindow window(kShape, 10);
  window.add(3, sums_of(1, TokenClass::kVision, {6, 0, 2, 0}));
  const auto balances = window.balances(two_ranks());
  EXPECT_EQ(balances.size(), 6u);
  EXPECT_EQ(find(balances, 1, "text").num_pairs, 0);
  EXPECT_EQ(find(balances, 0, "all").num_pairs, 0);
  EXPECT_EQ(find(balances, 1, "vision").num_pairs, 8);
  EXPECT_DOUBLE_EQ(find(balances, 1, "vision").rank_max_over_mean, 1.5);
  EXPECT_DOUBLE_EQ(find(balances, 1, "all").expert_max_over_mean, 3.0);
}

TEST(LoadWindow, ForgetsStepsThatAreTooLongAgo) {
  LoadWindow window(kShape, 10);
  window.add(4, sums_of(0, TokenClass::kText, {100, 0, 0, 0}));
  EXPECT_FALSE(window.is_full());
  window.add(9, sums_of(0, TokenClass::kText, {100, 0, 0, 7}));
  EXPECT_TRUE(window.is_full());
  EXPECT_EQ(find(window.balances(two_ranks()), 0, "text").num_pairs, 107);
  window.add(14, sums_of(0, TokenClass::kText, {100, 0, 0, 9}));
  EXPECT_EQ(find(window.balances(two_ranks()), 0, "text").num_pairs, 9);
  EXPECT_DOUBLE_EQ(find(window.balances(two_ranks()), 0, "text").rank_max_over_mean, 2.0);
}

TEST(LoadWindow, ReachesBackAWholeWindowWhenReportsComeSlowly) {
  LoadWindow window(kShape, 10);
  window.add(4, sums_of(0, TokenClass::kText, {1, 0, 0, 0}));
  window.add(40, sums_of(0, TokenClass::kText, {2, 0, 0, 0}));
  EXPECT_TRUE(window.is_full());
  EXPECT_EQ(find(window.balances(two_ranks()), 0, "text").num_pairs, 1);
}

TEST(LoadWindow, WeighsLayersByWhatTheyRan) {
  LoadWindow window(kShape, 10);
  auto sums = sums_of(0, TokenClass::kText, {10, 0, 0, 0});
  sums[kShape.first_of(1, 0)] = 15;
  sums[kShape.first_of(1, 0) + 2] = 15;
  window.add(9, sums);
  EXPECT_DOUBLE_EQ(window.rank_max_over_mean(two_ranks()), (10.0 + 15.0) / (5.0 + 15.0));
}

TEST(ImbalanceAlarm, RingsOnceAndIsQuietOnlyAfterAClearImprovement) {
  ImbalanceAlarm alarm(2.0);
  EXPECT_FALSE(alarm.update(2.0)) << "the threshold itself is allowed";
  EXPECT_TRUE(alarm.update(2.1));
  EXPECT_FALSE(alarm.update(2.5)) << "it rings already";
  EXPECT_FALSE(alarm.update(1.9));
  EXPECT_TRUE(alarm.is_ringing());
  EXPECT_FALSE(alarm.update(2.1)) << "it never went quiet";
  EXPECT_FALSE(alarm.update(1.79));
  EXPECT_FALSE(alarm.is_ringing());
  EXPECT_TRUE(alarm.update(2.1));
  EXPECT_EQ(alarm.num_alarms(), 2);
}

TEST(ImbalanceAlarm, IsOffAtThresholdZero) {
  ImbalanceAlarm alarm(0.0);
  EXPECT_FALSE(alarm.update(100.0));
  EXPECT_EQ(alarm.num_alarms(), 0);
}

}  // namespace
}  // namespace skipper

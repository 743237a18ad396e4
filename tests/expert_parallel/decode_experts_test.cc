#include "expert_parallel/decode_experts.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/expert_parallel/frozen_routing.h"

namespace skipper {
namespace {

LevelTable base_k(int32_t k) {
  return table({point_with([&](OperatingPoint& p) { p.decode_base_k = k; })});
}

LevelTable rank_experts(int32_t limit) {
  return table({point_with([&](OperatingPoint& p) { p.decode_rank_experts = limit; })});
}

Frozen generated_text(int64_t num_tokens, uint32_t seed) {
  Frozen frozen = random_routing(num_tokens, 1, seed);
  frozen.set_class(TokenClass::kText);
  frozen.set_phase(TokenPhase::kGenerated);
  return frozen;
}

void set_phase(Frozen& frozen, size_t token, TokenPhase phase) {
  frozen.policies.phase.data<uint8_t>()[token] = static_cast<uint8_t>(phase);
}

std::set<int32_t> experts_used(const Skipped& skipped, size_t num_tokens) {
  std::set<int32_t> experts;
  for (size_t t = 0; t < num_tokens; ++t) experts.insert(skipped.ids(t).begin(), skipped.ids(t).end());
  experts.erase(kNoExpert);
  return experts;
}

TEST(DecodeExperts, ActivatesExactlyTheUnionOfTheFirstK) {
  const Frozen frozen = generated_text(5, 3);
  for (const size_t k : {1u, 2u, 3u}) {
    std::set<int32_t> expected;
    for (size_t t = 0; t < 5; ++t) expected.insert(frozen.ids(t).begin(), frozen.ids(t).begin() + static_cast<int64_t>(k));
    const Skipped skipped = skip(frozen, base_k(static_cast<int32_t>(k)));
    EXPECT_EQ(experts_used(skipped, 5), expected);
    for (size_t t = 0; t < 5; ++t) {
      for (size_t j = 0; j < kTopK; ++j) {
        EXPECT_EQ(skipped.ids(t)[j], expected.contains(frozen.ids(t)[j]) ? frozen.ids(t)[j] : kNoExpert);
      }
    }
  }
}

TEST(DecodeExperts, SkipNothingAtFullKOrWithRoomForAllExperts) {
  const Frozen frozen = generated_text(7, 5);
  EXPECT_EQ(total(skip(frozen, base_k(kTopK)).counters.pairs_skipped), 0);
  EXPECT_EQ(total(skip(frozen, rank_experts(kNumExperts)).counters.pairs_skipped), 0);
}

TEST(DecodeExperts, LeavePromptTokensAlone) {
  Frozen frozen = generated_text(9, 7);
  frozen.set_phase(TokenPhase::kPrompt);
  EXPECT_EQ(total(skip(frozen, base_k(1)).counters.pairs_skipped), 0);
  EXPECT_EQ(total(skip(frozen, rank_experts(1)).counters.pairs_skipped), 0);
}

TEST(DecodeExperts, ExpertsOfTokensOutsideTheRuleAreFreeForAll) {
  Frozen frozen = generated_text(6, 9);
  set_phase(frozen, 0, TokenPhase::kPrompt);
  const Skipped skipped = skip(frozen, base_k(1));
  std::set<int32_t> expected(frozen.ids(0).begin(), frozen.ids(0).end());
  for (size_t t = 1; t < 6; ++t) expected.insert(frozen.ids(t)[0]);
  EXPECT_EQ(experts_used(skipped, 6), expected);
  EXPECT_TRUE(std::ranges::equal(skipped.ids(0), frozen.ids(0)));
}

TEST(DecodeExperts, KeepTheLargestSumsOfEachRank) {
  const Frozen frozen = generated_text(12, 11);
  constexpr size_t kRanks = 4;
  std::map<int32_t, double> sums;
  for (size_t t = 0; t < 12; ++t) {
    for (size_t j = 0; j < kTopK; ++j) sums[frozen.ids(t)[j]] += double{frozen.weights(t)[j]};
  }
  for (const int32_t limit : {1, 2, 3}) {
    const ClusterTopology topology(std::vector<int>(kRanks, 0));
    const auto placement = ExpertPlacement::contiguous(
        {.num_moe_layers = kNumLayers, .num_experts = kNumExperts, .world_size = kRanks});
    const Destinations destinations{.homes = placement.homes(kLayer), .topology = topology, .own_rank = 0};
    const LevelTable levels = rank_experts(limit);
    BatchRules rules(levels, kLayer, frozen.policies);
    Skipped skipped{.kept = frozen.subset({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}).routing, .counters = {}};
    DecodeExperts scratch;
    apply_decode_rules({frozen.routing, skipped.kept.expert_ids, rules, destinations}, scratch);
    std::map<int, std::vector<double>> of_rank;
    for (const auto& [expert, sum] : sums) of_rank[rank_of_expert(expert, kRanks)].push_back(sum);
    for (auto& [rank, values] : of_rank) std::ranges::sort(values, std::greater<>());
    const std::set<int32_t> used = experts_used(skipped, 12);
    for (const auto& [expert, sum] : sums) {
      const auto& values = of_rank[rank_of_expert(expert, kRanks)];
      const bool is_among = static_cast<size_t>(limit) >= values.size() || sum >= values[static_cast<size_t>(limit) - 1];
      EXPECT_EQ(used.contains(expert), is_among) << "expert " << expert << " limit " << limit;
    }
  }
}

TEST(DecodeExperts, CountExpertsOfOutsidersAgainstTheLimit) {
  Frozen frozen = generated_text(8, 13);
  set_phase(frozen, 3, TokenPhase::kPrompt);
  const Skipped skipped = skip(frozen, rank_experts(kTopK));  // as many as the outsider uses
  const std::set<int32_t> expected(frozen.ids(3).begin(), frozen.ids(3).end());
  EXPECT_EQ(experts_used(skipped, 8), expected);
}

TEST(DecodeExperts, KeepTheFirstPairOfATokenWhenAsked) {
  const Frozen frozen = generated_text(10, 15);
  LevelTable levels = rank_experts(1);
  levels.levels[0].protect_top1 = true;
  const Skipped skipped = skip(frozen, levels);
  for (size_t t = 0; t < 10; ++t) EXPECT_EQ(skipped.ids(t)[0], frozen.ids(t)[0]);
  EXPECT_GT(total(skipped.counters.pairs_skipped), 0);
}

TEST(DecodeExperts, TakeNoTokens) {
  EXPECT_EQ(skip(generated_text(0, 1), base_k(1)).kept.expert_ids.dim(0), 0);
}

}  // namespace
}  // namespace skipper

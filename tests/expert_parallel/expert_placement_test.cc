#include "expert_parallel/expert_placement.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace skipper {
namespace {

struct Sizes {
  int num_experts;
  int world_size;
};

class ContiguousPlacement : public ::testing::TestWithParam<Sizes> {
 protected:
  ExpertPlacement placement_ = ExpertPlacement::contiguous(
      {.num_moe_layers = 2, .num_experts = GetParam().num_experts, .world_size = GetParam().world_size});
};

TEST_P(ContiguousPlacement, GivesEveryExpertToOneRankInAscendingBlocks) {
  for (int layer = 0; layer < 2; ++layer) {
    std::vector<int32_t> all;
    for (int rank = 0; rank < GetParam().world_size; ++rank) {
      const auto& experts = placement_.experts_of(rank, layer);
      all.insert(all.end(), experts.begin(), experts.end());
    }
    ASSERT_EQ(all.size(), static_cast<size_t>(GetParam().num_experts));
    for (size_t e = 0; e < all.size(); ++e) EXPECT_EQ(all[e], static_cast<int32_t>(e));
  }
}

TEST_P(ContiguousPlacement, BalancesBlocksToWithinOneExpert) {
  size_t least = SIZE_MAX;
  size_t most = 0;
  for (int rank = 0; rank < GetParam().world_size; ++rank) {
    least = std::min(least, placement_.experts_of(rank, 1).size());
    most = std::max(most, placement_.experts_of(rank, 1).size());
  }
  EXPECT_LE(most - least, 1u);
  EXPECT_EQ(placement_.max_local_experts(), static_cast<int>(most));
}

TEST_P(ContiguousPlacement, NamesTheSlotWhereTheOwnerKeepsTheExpert) {
  for (int32_t expert = 0; expert < GetParam().num_experts; ++expert) {
    const ExpertHome home = placement_.owner({.layer = 1, .expert = expert});
    EXPECT_EQ(placement_.experts_of(home.rank, 1).at(static_cast<size_t>(home.slot)), expert);
    EXPECT_EQ(placement_.homes(1)[static_cast<size_t>(expert)].rank, home.rank);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ContiguousPlacement,
                         ::testing::Values(Sizes{1, 1}, Sizes{1, 4}, Sizes{5, 3}, Sizes{7, 8}, Sizes{8, 8}, Sizes{32, 1},
                                           Sizes{32, 3}, Sizes{32, 4}, Sizes{31, 8}, Sizes{128, 9}),
                         [](const auto& info) {
                           return std::to_string(info.param.num_experts) + "ExpertsOn" +
                                  std::to_string(info.param.world_size) + "Ranks";
                         });

TEST(ExpertPlacement, ListsTheExpertsOfARankForAllLayers) {
  const auto placement = ExpertPlacement::contiguous({.num_moe_layers = 3, .num_experts = 4, .world_size = 2});
  EXPECT_EQ(placement.experts_of(1), (std::vector<std::vector<int32_t>>{{2, 3}, {2, 3}, {2, 3}}));
}

TEST(PlacementFromHomes, KeepsRanksAndSlotsAsGiven) {
  // Two layers of three experts on three ranks, of which the last owns none of layer 0.
  const auto placement = ExpertPlacement::from_homes({.num_moe_layers = 2, .num_experts = 3, .world_size = 3},
                                                     {{1, 0}, {0, 1}, {0, 0}, {2, 0}, {0, 0}, {1, 0}});
  EXPECT_EQ(placement.experts_of(0, 0), (std::vector<int32_t>{2, 1}));
  EXPECT_EQ(placement.experts_of(1, 0), (std::vector<int32_t>{0}));
  EXPECT_TRUE(placement.experts_of(2, 0).empty());
  EXPECT_EQ(placement.experts_of(2, 1), (std::vector<int32_t>{0}));
  EXPECT_EQ(placement.owner({0, 1}).rank, 0);
  EXPECT_EQ(placement.owner({0, 1}).slot, 1);
  EXPECT_EQ(placement.max_local_experts(), 2);
}

TEST(PlacementFromHomesDeathTest, RefusesSlotsThatTwoExpertsShare) {
  const PlacementShape shape{.num_moe_layers = 1, .num_experts = 2, .world_size = 1};
  EXPECT_DEATH(ExpertPlacement::from_homes(shape, {{0, 0}, {0, 0}}), "expert 1: slot 0");
}

TEST(ExpertPlacement, PutsShadowsBehindTheExpertsThatARankOwns) {
  const auto owners = ExpertPlacement::contiguous({.num_moe_layers = 2, .num_experts = 5, .world_size = 2});
  const std::vector<ShadowExpert> shadows = {{.id = {1, 4}, .rank = 0, .relative_error = 0.5f},
                                             {.id = {1, 2}, .rank = 0, .relative_error = 0.25f},
                                             {.id = {1, 0}, .rank = 1}};
  const ExpertPlacement placement = owners.with_shadows(shadows);
  EXPECT_TRUE(placement.has_shadows());
  EXPECT_EQ(placement.experts_of(0, 0), owners.experts_of(0, 0));
  EXPECT_EQ(placement.experts_of(0, 1), (std::vector<int32_t>{0, 1, 4, 2}));
  EXPECT_EQ(placement.experts_of(1, 1), (std::vector<int32_t>{2, 3, 4, 0}));
  EXPECT_EQ(placement.max_local_experts(), 4);
  const auto seen = placement.homes_seen_from(0, 1);
  ASSERT_EQ(seen.size(), 10u);
  for (size_t e = 0; e < 5; ++e) EXPECT_EQ(seen[e].rank, owners.homes(1)[e].rank);
  for (size_t e = 5; e < 10; ++e) EXPECT_EQ(seen[e].rank, 0);
  EXPECT_EQ(seen[5 + 4].slot, 2);
  EXPECT_EQ(seen[5 + 2].slot, 3);
  EXPECT_EQ(seen[5 + 3].slot, -1);
  EXPECT_EQ(placement.shadow_errors(0, 1)[2], 0.25f);
  EXPECT_EQ(placement.shadow_errors(0, 1)[3], 1.0f);
  EXPECT_EQ(placement.shadow_errors(0, 0)[2], 1.0f);
}

TEST(ExpertPlacement, ShowsTheOwnersAloneWhereThereAreNoShadows) {
  const auto placement = ExpertPlacement::contiguous({.num_moe_layers = 1, .num_experts = 3, .world_size = 2}).with_shadows({});
  EXPECT_FALSE(placement.has_shadows());
  EXPECT_EQ(placement.homes_seen_from(1, 0).data(), placement.homes(0).data());
  EXPECT_EQ(placement.homes_seen_from(1, 0).size(), 3u);
  EXPECT_TRUE(placement.shadow_errors(1, 0).empty());
}

}  // namespace
}  // namespace skipper

#include "residency/route_trace.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace skipper {
namespace {

constexpr ExpertCounts kTracedCounts{.num_layers = 4, .num_experts = 32};

TEST(RouteTrace, DrawsDistinctExpertsOfEveryLayerInOrder) {
  const RouteTrace trace = draw_routes(kTracedCounts, {.top_k = 8}, 20, 5);
  ASSERT_EQ(trace.sets.size(), 80u);
  for (size_t s = 0; s < trace.sets.size(); ++s) {
    EXPECT_EQ(trace.sets[s].layer, static_cast<int>(s % 4));
    ASSERT_EQ(trace.sets[s].experts.size(), 8u);
    EXPECT_TRUE(std::ranges::is_sorted(trace.sets[s].experts, std::ranges::less_equal{}));
    EXPECT_GE(trace.sets[s].experts.front(), 0);
    EXPECT_LT(trace.sets[s].experts.back(), 32);
  }
  EXPECT_EQ(trace.num_needs(), 640);
}

TEST(RouteTrace, ComesFromItsSeed) {
  const RouteTrace one = draw_routes(kTracedCounts, {}, 5, 1);
  const RouteTrace same = draw_routes(kTracedCounts, {}, 5, 1), other = draw_routes(kTracedCounts, {}, 5, 2);
  EXPECT_EQ(one.sets[7].experts, same.sets[7].experts);
  EXPECT_NE(one.sets[7].experts, other.sets[7].experts);
}

TEST(RouteTrace, TakesMoreWantedThanThereAre) {
  const RouteTrace trace = draw_routes({.num_layers = 1, .num_experts = 3}, {.top_k = 8}, 2, 1);
  EXPECT_EQ(trace.sets[1].experts, (std::vector<int32_t>{0, 1, 2}));
}

TEST(RouteTrace, ShowsTheLawItWasDrawnBy) {
  const RouteLaw even{.top_k = 4, .skew = 0.0, .repeat = 0.0, .follow = 0.0};
  const RouteLaw skewed{.top_k = 4, .skew = 1.0, .repeat = 0.0, .follow = 0.0};
  const RouteLaw repeating{.top_k = 4, .skew = 0.0, .repeat = 0.6, .follow = 0.0};
  const RouteLaw following{.top_k = 4, .skew = 0.0, .repeat = 0.0, .follow = 0.8};
  const auto seen = [](const RouteLaw& law) { return law_of(draw_routes(kTracedCounts, law, 400, 9)); };
  EXPECT_EQ(seen(even).top_k, 4);
  EXPECT_GT(seen(skewed).skew, seen(even).skew + 0.3);
  EXPECT_NEAR(seen(even).repeat, 4.0 / 32, 0.03);  // by chance
  EXPECT_GT(seen(repeating).repeat, 0.55);
  EXPECT_GT(seen(following).follow, seen(even).follow + 0.4);
}

}  // namespace
}  // namespace skipper

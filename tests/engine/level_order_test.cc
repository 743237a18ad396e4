#include "engine/level_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cfloat>

#include "engine/level_map.h"

namespace skipper {
namespace {

using testing::ElementsAre;

OperatingPoint point(float tau_text, float tau_vision, std::vector<float> alpha = {0.5f, 0.5f}) {
  OperatingPoint result;
  result.alpha = {alpha, alpha};
  result.tau = {tau_text, tau_vision};
  return result;
}

TEST(SkipsNoMore, ComparesTheThresholdsOfEveryClassAndLayer) {
  EXPECT_TRUE(skips_no_more(point(0.1f, 0.2f), point(0.1f, 0.2f)));
  EXPECT_TRUE(skips_no_more(point(0.1f, 0.2f), point(0.2f, 0.2f)));
  EXPECT_FALSE(skips_no_more(point(0.1f, 0.3f), point(0.2f, 0.2f)));
  EXPECT_TRUE(skips_no_more(point(0.0f, 0.0f), point(0.0f, 0.0f)));
  EXPECT_FALSE(skips_no_more(point(FLT_MIN, 0.0f), point(0.0f, 0.0f)));
}

TEST(SkipsNoMore, WeighsThresholdsByAlpha) {
  const OperatingPoint uneven = point(0.1f, 0.1f, {0.2f, 0.8f});  // p < 0.5 in the first layer, p < 0.125 in the second
  EXPECT_FALSE(skips_no_more(uneven, point(0.1f, 0.1f)));
  EXPECT_TRUE(skips_no_more(uneven, point(0.25f, 0.25f)));
  EXPECT_TRUE(skips_no_more(point(0.0625f, 0.0625f), uneven));
  // Alpha 0 skips everything at any threshold.
  EXPECT_FALSE(skips_no_more(point(FLT_MIN, FLT_MIN, {0.0f, 1.0f}), point(0.4f, 0.4f)));
  EXPECT_TRUE(skips_no_more(point(0.4f, 0.4f, {0.5f, 0.5f}), point(0.8f, 0.8f, {0.0f, 1.0f})));
}

TEST(SkipsNoMore, ComparesGeneratedTokensByTheirOwnThreshold) {
  OperatingPoint harsh_on_answers = point(0.1f, 0.1f);
  harsh_on_answers.tau_generated = 0.3f;
  EXPECT_FALSE(skips_no_more(harsh_on_answers, point(0.2f, 0.2f)));
  EXPECT_TRUE(skips_no_more(point(0.1f, 0.1f), harsh_on_answers));
}

TEST(SkipsNoMore, ComparesOtherRulesByTheirOwnNumbers) {
  OperatingPoint two = point(0.0f, 0.0f), three = two;
  two.pair_rule = three.pair_rule = PairRule::kTopK;
  two.kept_k = {2.0f, 2.0f};
  three.kept_k = {3.0f, 0.0f};
  EXPECT_TRUE(skips_no_more(three, two));
  EXPECT_FALSE(skips_no_more(two, three));
  OperatingPoint low = point(0.0f, 0.0f), high = low;
  low.pair_rule = high.pair_rule = PairRule::kTailMass;
  low.beta = {std::vector{0.1f, 0.1f}, std::vector<float>()};
  high.beta = {std::vector{0.1f, 0.2f}, std::vector{0.1f, 0.1f}};
  EXPECT_TRUE(skips_no_more(low, high));
  EXPECT_FALSE(skips_no_more(high, low));
  OperatingPoint destinations = point(0.1f, 0.1f);
  destinations.tau_dst[0][2] = 0.1f;
  EXPECT_FALSE(skips_no_more(destinations, point(0.1f, 0.1f)));
  EXPECT_TRUE(skips_no_more(point(0.1f, 0.1f), destinations));
}

TEST(SkipsNoMore, IsFalseWhereNumbersCannotTell) {
  OperatingPoint other = point(0.5f, 0.5f);
  other.expert_scale = {1.0f, 2.0f};
  EXPECT_FALSE(skips_no_more(point(0.1f, 0.1f), other));
  other = point(0.5f, 0.5f);
  other.rank_capacity = 1.5f;
  EXPECT_FALSE(skips_no_more(point(0.1f, 0.1f), other));
  other = point(0.5f, 0.5f);
  other.protect_top1 = true;
  EXPECT_FALSE(skips_no_more(point(0.1f, 0.1f), other));
  EXPECT_TRUE(skips_no_more(other, point(0.5f, 0.5f)));
  EXPECT_TRUE(skips_no_more(point(0.0f, 0.0f), other)) << "what skips nothing is under everything";
}

TEST(PlacesOf, PutsUploadedLevelsUnderTheLowestOfTheLadderThatSkipsAsMuch) {
  const std::vector<OperatingPoint> levels = {point(0.0f, 0.0f),   point(0.1f, 0.1f),  point(0.3f, 0.3f),
                                              point(0.2f, 0.2f),   point(0.05f, 0.0f), point(0.4f, 0.0f),
                                              point(0.0f, 0.0f)};
  EXPECT_THAT(places_of(levels, 3), ElementsAre(0, 1, 2, 2, 1, 3, 0));
  EXPECT_THAT(places_of(levels, levels.size()), ElementsAre(0, 1, 2, 3, 4, 5, 6));
}

TEST(LevelMap, KeepsARequestUnderItsCeilingByPlace) {
  LevelMap map;
  map.place_of_level[3] = 1;  // uploaded, gentler than level 2
  EXPECT_EQ(map.level_under(2, 3), 3);
  EXPECT_EQ(map.level_under(1, 3), 3);
  EXPECT_EQ(map.level_under(0, 3), 0);
  EXPECT_EQ(map.level_under(1, 2), 1);
  EXPECT_EQ(map.level_under(UINT8_MAX, 3), 3);
}

}  // namespace
}  // namespace skipper

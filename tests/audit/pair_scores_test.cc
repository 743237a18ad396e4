#include "audit/pair_scores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace skipper {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::IsEmpty;

const std::vector<int32_t> kExperts = {2, 0};
const std::vector<float> kWeights = {0.6f, 0.2f};

RoutedToken token(TokenClass token_class, TokenPhase phase = TokenPhase::kPrompt) {
  return {.kind = {.moe_layer = 1, .token_class = token_class, .phase = phase}, .experts = kExperts, .weights = kWeights};
}

// Two layers, three experts.
OperatingPoint point(PairRule rule) {
  OperatingPoint result;
  result.pair_rule = rule;
  result.alpha = {std::vector<float>{0.5f, 0.5f}, std::vector<float>{0.75f, 0.25f}};
  result.beta = {std::vector<float>{0.1f, 0.2f}, std::vector<float>{}};
  result.tau = {0.1f, 0.2f};
  result.kept_k = {1.5f, 1.0f};
  return result;
}

TEST(PairScores, ScoreRuleComparesAlphaTimesShareWithTau) {
  const PairScores scores = pair_scores(point(PairRule::kScore), token(TokenClass::kVision));
  EXPECT_THAT(scores.scores, ElementsAre(FloatEq(0.25f * 0.75f), FloatEq(0.25f * 0.25f)));
  EXPECT_EQ(scores.threshold, 0.2f);
}

TEST(PairScores, ScoreRuleScalesByExpert) {
  OperatingPoint scaled = point(PairRule::kScore);
  scaled.expert_scale = {1, 1, 1, 3, 1, 2};
  EXPECT_THAT(pair_scores(scaled, token(TokenClass::kText)).scores, ElementsAre(FloatEq(0.75f), FloatEq(0.375f)));
}

TEST(PairScores, GeneratedTextHasItsOwnThreshold) {
  OperatingPoint phased = point(PairRule::kScore);
  EXPECT_EQ(pair_scores(phased, token(TokenClass::kText, TokenPhase::kGenerated)).threshold, 0.1f);
  phased.tau_generated = 0.05f;
  EXPECT_EQ(pair_scores(phased, token(TokenClass::kText, TokenPhase::kGenerated)).threshold, 0.05f);
  EXPECT_EQ(pair_scores(phased, token(TokenClass::kText, TokenPhase::kPrompt)).threshold, 0.1f);
  EXPECT_EQ(pair_scores(phased, token(TokenClass::kVision, TokenPhase::kGenerated)).threshold, 0.2f);
}

TEST(PairScores, TailRuleComparesWhatIsLeft) {
  const PairScores scores = pair_scores(point(PairRule::kTailMass), token(TokenClass::kText));
  EXPECT_THAT(scores.scores, ElementsAre(FloatEq(1.0f), FloatEq(0.25f)));
  EXPECT_EQ(scores.threshold, 0.2f);
}

TEST(PairScores, RelativeRuleComparesWithTheFirst) {
  const PairScores scores = pair_scores(point(PairRule::kRelative), token(TokenClass::kText));
  EXPECT_THAT(scores.scores, ElementsAre(FloatEq(0.75f), FloatEq(0.25f)));
  EXPECT_FLOAT_EQ(scores.threshold, 0.15f);
}

TEST(PairScores, SimilarRuleComparesWithTheFirstAsFarAsTheyAreAlike) {
  OperatingPoint similar = point(PairRule::kSimilar);
  similar.expert_similarity.assign(2 * 3 * 3, 1.0f);
  similar.expert_similarity[9 + 2 * 3 + 0] = 0.5f;  // layer 1: expert 2 and expert 0
  const PairScores scores = pair_scores(similar, token(TokenClass::kText));
  EXPECT_THAT(scores.scores, ElementsAre(FloatEq(0.75f), FloatEq(0.5f)));
  EXPECT_FLOAT_EQ(scores.threshold, 0.15f);
  similar.expert_similarity[9 + 2 * 3 + 0] = 0.0f;
  EXPECT_THAT(pair_scores(similar, token(TokenClass::kText)).scores, ElementsAre(FloatEq(0.75f), FloatEq(0.25f)));
}

TEST(PairScores, TopKAndProtectedTokensCompareNothing) {
  EXPECT_THAT(pair_scores(point(PairRule::kTopK), token(TokenClass::kText)).scores, IsEmpty());
  EXPECT_EQ(pair_scores(point(PairRule::kTopK), token(TokenClass::kText)).threshold, 1.5f);
  EXPECT_THAT(pair_scores(point(PairRule::kScore), token(TokenClass::kProtected)).scores, IsEmpty());
}

TEST(PairScores, TokensThatNoRuleMayTouchCompareNothing) {
  EXPECT_THAT(pair_scores(point(PairRule::kRelative), token(TokenClass::kVision)).scores, IsEmpty()) << "no beta for vision";
  OperatingPoint bypassed = point(PairRule::kScore);
  bypassed.identity_bypass[0] = {0, 1};
  EXPECT_THAT(pair_scores(bypassed, token(TokenClass::kText)).scores, IsEmpty());
  const std::vector<float> no_numbers = {NAN, 0.2f};
  RoutedToken broken = token(TokenClass::kText);
  broken.weights = no_numbers;
  EXPECT_THAT(pair_scores(point(PairRule::kScore), broken).scores, IsEmpty());
}

}  // namespace
}  // namespace skipper

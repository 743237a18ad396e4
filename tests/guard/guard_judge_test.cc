#include "guard/guard_judge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace skipper {
namespace {

using testing::HasSubstr;

GuardReading reading(int expert, double error, double allowed) {
  return {.moe_layer = 2, .expert = expert, .relative_error = error, .allowed_error = allowed, .num_rows = 24};
}

TEST(GuardJudge, AllowsAMultipleOfWhatTheFormatCostsAndAlwaysAHarmlessError) {
  const GuardConfig config{.share = 0.1, .max_error_ratio = 3.0};
  EXPECT_DOUBLE_EQ(allowed_error(config, 0.1), 0.3);
  EXPECT_DOUBLE_EQ(allowed_error(config, 0.0), kHarmlessError);
}

TEST(GuardJudge, NamesTheWorstExpertOfAllRanks) {
  const GuardJudge judge({.share = 0.1});
  const std::vector<GuardReading> readings{reading(3, 0.19, 0.2), {}, reading(5, 0.5, 0.2), reading(7, 0.5, 0.4)};
  const auto breach = judge.judge(readings);
  ASSERT_TRUE(breach);
  EXPECT_EQ(breach->rank, 2);
  EXPECT_EQ(breach->expert, 5);
  EXPECT_EQ(breach->text(), "expert 5 of MoE layer 2 on rank 2: relative error 0.5 over 0.2 (24 rows)");
}

TEST(GuardJudge, IsContentAtTheThresholdAndWithoutReadings) {
  const GuardJudge judge({.share = 0.1});
  EXPECT_FALSE(judge.judge({}));
  EXPECT_FALSE(judge.judge(std::vector<GuardReading>{{}, reading(1, 0.2, 0.2)}));
}

TEST(GuardJudge, TakesNaNForABreach) {
  GuardJudge judge({.share = 0.1, .min_tokens = 1});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(judge.judge(std::vector<GuardReading>{reading(1, nan, 0.2)}));
  EXPECT_TRUE(judge.judge_predictions(nan, 10));
}

TEST(GuardJudge, JudgesPredictionsOverAWindowWithEnoughTokens) {
  GuardJudge judge({.share = 0.1, .max_kl = 0.1, .min_tokens = 20, .window_tokens = 40});
  EXPECT_EQ(judge.mean_kl(), 0.0);
  EXPECT_FALSE(judge.judge_predictions(10.0, 10)) << "too few tokens";
  const auto breach = judge.judge_predictions(10.0, 10);
  ASSERT_TRUE(breach);
  EXPECT_THAT(breach->text(), HasSubstr("KL 1 nats per token over 0.1 (20 tokens)"));
  judge.forget();
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(judge.judge_predictions(0.5, 10));
  EXPECT_NEAR(judge.mean_kl(), 0.05, 1e-12);
}

}  // namespace
}  // namespace skipper

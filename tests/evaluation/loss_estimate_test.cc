#include "evaluation/loss_estimate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace skipper {
namespace {

std::vector<ScoredLoss> texts(const std::vector<double>& losses) {
  std::vector<ScoredLoss> samples;
  for (const double loss : losses) samples.push_back({SampleKind::kText, loss, 10.0});
  return samples;
}

// --- estimates ---

TEST(LossEstimate, IsTheStandardErrorOfAMeanWhereSamplesAreOfOneSize) {
  const LossEstimate estimate = estimate_loss(texts({1.0, 2.0, 3.0, 6.0}));
  EXPECT_DOUBLE_EQ(estimate.mean, 0.3);
  // Variance of the four is 14/3; of their sum four times that.
  EXPECT_NEAR(estimate.standard_error, std::sqrt(4.0 * 14.0 / 3.0) / 40.0, 1e-12);
}

TEST(LossEstimate, DoesNotCountDifferencesBetweenKinds) {
  std::vector<ScoredLoss> samples = texts({5.0, 5.0, 5.0});
  for (int i = 0; i < 3; ++i) samples.push_back({SampleKind::kQuestion, 0.5, 2.0});
  EXPECT_NEAR(estimate_loss(samples).standard_error, 0.0, 1e-12);
  EXPECT_DOUBLE_EQ(estimate_loss(samples).mean, 16.5 / 36.0);
}

TEST(LossEstimate, DistrustsAKindOfOneSample) {
  EXPECT_DOUBLE_EQ(estimate_loss(texts({4.0})).standard_error, 0.4);
  EXPECT_EQ(estimate_loss({}).mean, 0.0);
}

TEST(LossEstimate, PairsSamples) {
  const LossEstimate difference = estimate_difference(texts({1.0, 5.0, 9.0}), texts({2.0, 6.0, 10.0}));
  EXPECT_DOUBLE_EQ(difference.mean, -0.1);
  EXPECT_NEAR(difference.standard_error, 0.0, 1e-12);
}

// --- shrinkage ---

TEST(ShrinkToMean, BelievesWhatIsSureAndNothingThatNoiseExplains) {
  const std::vector<double> values = {1.0, 2.0, 6.0}, weights = {1.0, 1.0, 1.0};
  EXPECT_EQ(shrink_to_mean(values, std::vector<double>{0.0, 0.0, 0.0}, weights), values);
  EXPECT_EQ(shrink_to_mean(values, std::vector<double>{9.0, 9.0, 9.0}, weights), std::vector<double>(3, 3.0));
}

TEST(ShrinkToMean, DrawsNoisyValuesFurther) {
  const std::vector<double> values = {0.0, 0.0, 4.0, 4.0}, errors = {0.1, 1.0, 1.0, 0.1};
  const std::vector<double> shrunk = shrink_to_mean(values, errors, std::vector<double>(4, 1.0));
  EXPECT_LT(shrunk[0], shrunk[1]);
  EXPECT_LT(shrunk[2], shrunk[3]);
  EXPECT_LT(shrunk[1], 2.0);
}

TEST(ShrinkToMean, StaysInRangeAndIsNearerToTheTruthThanWhatWasMeasured) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  double measured_error = 0.0, shrunk_error = 0.0;
  for (int round = 0; round < 50; ++round) {
    std::vector<double> truth, values, errors, weights;
    for (int i = 0; i < 32; ++i) {
      truth.push_back(5.0 + 0.5 * normal(random));
      errors.push_back(0.2 + 0.1 * (i % 8));
      values.push_back(truth.back() + errors.back() * normal(random));
      weights.push_back(1.0 + i % 3);
    }
    const std::vector<double> shrunk = shrink_to_mean(values, errors, weights);
    const auto [low, high] = std::ranges::minmax(values);
    for (size_t i = 0; i < truth.size(); ++i) {
      EXPECT_GE(shrunk[i], low - 1e-12);
      EXPECT_LE(shrunk[i], high + 1e-12);
      measured_error += (values[i] - truth[i]) * (values[i] - truth[i]);
      shrunk_error += (shrunk[i] - truth[i]) * (shrunk[i] - truth[i]);
    }
  }
  EXPECT_LT(shrunk_error, 0.8 * measured_error);
}

// --- choice ---

TEST(SurelyBest, TakesWhatIsBetterByMoreThanNoise) {
  const std::vector<ScoredLoss> uniform = texts({3.0, 4.0, 5.0, 4.0});
  const std::vector<ScoredLoss> sure = texts({2.0, 3.1, 3.9, 3.0});
  const std::vector<ScoredLoss> lucky = texts({0.1, 6.0, 2.0, 3.8});
  const std::vector<uint8_t> plain = {0, 1};
  EXPECT_EQ(surely_best(std::vector{sure, uniform}, plain), 0u);
  EXPECT_EQ(surely_best(std::vector{lucky, uniform}, plain), 1u);
  EXPECT_LT(estimate_loss(lucky).mean, estimate_loss(uniform).mean);
}

TEST(SurelyBest, TakesTheLeastMeanWhereNothingIsPlain) {
  EXPECT_EQ(surely_best(std::vector{texts({3.0, 3.0}), texts({2.0, 2.5})}, std::vector<uint8_t>{0, 0}), 1u);
}

TEST(SurelyBest, NeverLosesMoreThanAPlainOne) {
  std::mt19937 random(11);
  std::exponential_distribution<double> loss(1.0);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::vector<ScoredLoss>> losses;
    std::vector<uint8_t> plain;
    for (int candidate = 0; candidate < 6; ++candidate) {
      std::vector<double> values;
      for (int i = 0; i < 5; ++i) values.push_back(loss(random));
      losses.push_back(texts(values));
      plain.push_back(candidate == 0 || random() % 3 == 0 ? 1 : 0);
    }
    const double chosen = estimate_loss(losses[surely_best(losses, plain)]).mean;
    for (size_t i = 0; i < losses.size(); ++i) {
      if (plain[i] == 0) continue;
      EXPECT_LE(chosen, estimate_loss(losses[i]).mean);
    }
  }
}

}  // namespace
}  // namespace skipper

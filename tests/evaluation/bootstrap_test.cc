#include "evaluation/bootstrap.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace skipper {
namespace {

TEST(Bootstrap, MeanIsTheRatioOfSums) {
  const std::vector<SampleSum> samples = {{1.0, 1.0}, {9.0, 3.0}};
  EXPECT_DOUBLE_EQ(mean_of(samples), 2.5);
  EXPECT_DOUBLE_EQ(mean_of({}), 0.0);
  EXPECT_DOUBLE_EQ(mean_of(std::vector<SampleSum>{{0.0, 0.0}}), 0.0);
}

TEST(Bootstrap, EqualSamplesLeaveNoDoubt) {
  const std::vector<SampleSum> samples(7, {3.0, 2.0});
  const Interval interval = bootstrap_interval(samples);
  EXPECT_DOUBLE_EQ(interval.low, 1.5);
  EXPECT_DOUBLE_EQ(interval.high, 1.5);
}

TEST(Bootstrap, NothingToDrawFromGivesZero) {
  const Interval interval = bootstrap_interval({});
  EXPECT_EQ(interval.low, 0.0);
  EXPECT_EQ(interval.high, 0.0);
}

TEST(Bootstrap, AgreesWithTheNormalIntervalOfManyIndependentSamples) {
  std::mt19937_64 generator(3);
  std::normal_distribution<double> value(5.0, 2.0);
  std::vector<SampleSum> samples;
  for (int i = 0; i < 400; ++i) samples.push_back({value(generator), 1.0});
  const double mean = mean_of(samples);
  const double half_width = 1.96 * 2.0 / std::sqrt(400.0);
  const Interval interval = bootstrap_interval(samples);
  EXPECT_NEAR(interval.low, mean - half_width, 0.15 * half_width);
  EXPECT_NEAR(interval.high, mean + half_width, 0.15 * half_width);
}

TEST(Bootstrap, TheSameSeedDrawsTheSame) {
  const std::vector<SampleSum> samples = {{1.0, 1.0}, {2.0, 1.0}, {4.0, 2.0}, {9.0, 1.0}};
  const Interval first = bootstrap_interval(samples, 100, 7), again = bootstrap_interval(samples, 100, 7);
  EXPECT_EQ(first.low, again.low);
  EXPECT_EQ(first.high, again.high);
  EXPECT_LT(first.low, first.high);
}

}  // namespace
}  // namespace skipper

#include "metrics/latency_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace skipper {
namespace {

TEST(LatencyHistogram, HasNoPercentilesWithoutSamples) {
  const LatencyHistogram empty;
  EXPECT_EQ(empty.count(), 0);
  EXPECT_EQ(empty.percentile_ms(50), 0.0);
  EXPECT_EQ(empty.percentile_ms(99), 0.0);
}

TEST(LatencyHistogram, PutsABoundIntoTheBucketItCloses) {
  LatencyHistogram histogram;
  histogram.observe(LatencyHistogram::upper_bound(7));
  EXPECT_EQ(histogram.bucket_count(7), 1);
  histogram.observe(LatencyHistogram::upper_bound(7) * 1.0001);
  EXPECT_EQ(histogram.bucket_count(8), 1);
}

TEST(LatencyHistogram, TakesZeroNegativeAndEndlessDurations) {
  LatencyHistogram histogram;
  histogram.observe(0.0);
  histogram.observe(-1.0);
  histogram.observe(1e9);
  EXPECT_EQ(histogram.bucket_count(0), 2);
  EXPECT_EQ(histogram.bucket_count(LatencyHistogram::kNumBounds), 1);
  EXPECT_GE(histogram.sum_seconds(), 1e9);
  EXPECT_DOUBLE_EQ(histogram.percentile_ms(100), 1000.0 * LatencyHistogram::upper_bound(LatencyHistogram::kNumBounds - 1));
}

TEST(LatencyHistogram, PercentilesStayWithinABucketOfTheSortedSamples) {
  std::mt19937 random(5);
  std::lognormal_distribution<double> latency(-3.0, 1.5);
  LatencyHistogram histogram;
  std::vector<double> samples(4001);
  for (double& sample : samples) histogram.observe(sample = latency(random));
  std::sort(samples.begin(), samples.end());
  for (const double percent : {10.0, 50.0, 90.0, 99.0}) {
    const double exact_ms = 1000.0 * samples[static_cast<size_t>(percent / 100.0 * 4000.0)];
    EXPECT_LT(histogram.percentile_ms(percent), exact_ms * 1.42) << percent;
    EXPECT_GT(histogram.percentile_ms(percent), exact_ms / 1.42) << percent;
  }
}

TEST(LatencyHistogram, MergingEqualsObservingEverythingInOne) {
  LatencyHistogram left, right, both;
  for (const double seconds : {0.001, 0.2, 3.0}) left.observe(seconds), both.observe(seconds);
  for (const double seconds : {0.01, 40.0}) right.observe(seconds), both.observe(seconds);
  left.merge(right);
  EXPECT_EQ(left.count(), both.count());
  EXPECT_DOUBLE_EQ(left.sum_seconds(), both.sum_seconds());
  for (int i = 0; i <= LatencyHistogram::kNumBounds; ++i) EXPECT_EQ(left.bucket_count(i), both.bucket_count(i));
}

}  // namespace
}  // namespace skipper

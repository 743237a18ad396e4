#include "engine/reference_store.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"

namespace skipper {
namespace {

// From the definition, probabilities first.
double kl_by_definition(const std::vector<float>& p_logits, const std::vector<float>& q_logits) {
  const auto softmax = [](const std::vector<float>& logits) {
    std::vector<double> p;
    double sum = 0.0;
    for (const float logit : logits) sum += p.emplace_back(std::exp(static_cast<double>(logit)));
    for (double& value : p) value /= sum;
    return p;
  };
  const std::vector<double> p = softmax(p_logits);
  const std::vector<double> q = softmax(q_logits);
  double kl = 0.0;
  for (size_t i = 0; i < p.size(); ++i) kl += p[i] * std::log(p[i] / q[i]);
  return kl;
}

TEST(ReferenceDistance, IsTheDivergenceOfItsDefinition) {
  const std::vector<float> p = {0.5f, -1.25f, 3.0f, 0.0f, 2.75f};
  const std::vector<float> q = {1.5f, -0.25f, 2.0f, -4.0f, 2.5f};
  EXPECT_NEAR(distance_between(p, q).kl, kl_by_definition(p, q), 1e-14);
  EXPECT_NEAR(distance_between(q, p).kl, kl_by_definition(q, p), 1e-14);
  EXPECT_EQ(distance_between(p, q).num_flips, 1);
}

TEST(ReferenceDistance, OfEqualLogitsIsExactlyZero) {
  const std::vector<float> p = {0.1f, 700.3f, -1e30f, 12.7f};
  EXPECT_EQ(distance_between(p, p), ReferenceDistance());
  const std::vector<float> one = {3.7f};
  EXPECT_EQ(distance_between(one, one), ReferenceDistance());
}

TEST(ReferenceDistance, DoesNotSeeAConstantAddedToAllLogits) {
  const std::vector<float> p = {1.0f, 2.0f, 4.0f};
  const std::vector<float> q = {101.0f, 102.0f, 104.0f};
  EXPECT_NEAR(distance_between(p, q).kl, 0.0, 1e-13);
  EXPECT_GE(distance_between(p, q).kl, 0.0);
}

TEST(ReferenceDistance, TakesTheLowestOfEqualTokensForTheMostProbable) {
  const std::vector<float> tie = {2.0f, 2.0f};
  const std::vector<float> first = {2.0f, 1.0f};
  EXPECT_EQ(distance_between(tie, first).num_flips, 0);
}

TEST(ReferenceDistance, IsNotANumberWhenALogitIsNone) {
  const std::vector<float> p = {1.0f, 2.0f};
  const std::vector<float> broken = {1.0f, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_TRUE(std::isnan(distance_between(p, broken).kl));
  EXPECT_TRUE(std::isnan(distance_between(broken, p).kl));
}

TEST(ReferenceStore, ComparesRowByRowWithWhatWasKeptLast) {
  const std::vector<float> a = {1.0f, 0.0f};
  const std::vector<float> b = {0.0f, 1.0f};
  ReferenceStore store;
  store.start(7);
  store.keep(7, a);
  store.keep(7, b);
  EXPECT_EQ(store.compare(7, 0, a), ReferenceDistance());
  EXPECT_EQ(store.compare(7, 1, a).num_flips, 1);
  store.start(7);
  store.keep(7, b);
  EXPECT_EQ(store.compare(7, 0, b), ReferenceDistance());
  EXPECT_THROW(store.compare(7, 1, b), Error);
  EXPECT_THROW(store.compare(8, 0, b), Error);
}

}  // namespace
}  // namespace skipper

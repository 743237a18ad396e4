#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <vector>

namespace skipper {
namespace {

int32_t sample(std::vector<float> logits, const GenerationRequest& request, int32_t num_generated = 0) {
  return sample_token(logits, next_token_sampling(request, num_generated));
}

GenerationRequest sampled(float temperature) {
  GenerationRequest request;
  request.sampling.temperature = temperature;
  request.sampling.seed = 42;
  return request;
}

TEST(Sampler, IsGreedyUnlessAskedOtherwise) { EXPECT_EQ(sample({0.0f, 3.0f, 3.0f, 1.0f}, {}), 1); }

TEST(Sampler, FollowsTheSoftmaxOverManyPositions) {
  const GenerationRequest request = sampled(1.0f);
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  std::map<int32_t, int> counts;
  constexpr int kDraws = 20000;
  for (int position = 0; position < kDraws; ++position) ++counts[sample(logits, request, position)];
  EXPECT_NEAR(counts[0] / double{kDraws}, 0.5, 0.02);
  EXPECT_NEAR(counts[1] / double{kDraws}, 0.3, 0.02);
  EXPECT_NEAR(counts[2] / double{kDraws}, 0.2, 0.02);
}

TEST(Sampler, TemperatureSharpens) {
  const GenerationRequest cold = sampled(0.05f);
  for (int position = 0; position < 200; ++position) EXPECT_EQ(sample({1.0f, 2.0f, 0.5f}, cold, position), 1);
}

TEST(Sampler, PassesOnTopKAndTopP) {
  GenerationRequest request = sampled(1.0f);
  request.sampling.top_k = 2;
  std::set<int32_t> seen;
  for (int position = 0; position < 500; ++position) seen.insert(sample({1.0f, 1.1f, 1.2f, 0.9f}, request, position));
  EXPECT_EQ(seen, (std::set<int32_t>{1, 2}));

  request.sampling.top_k = 0;
  request.sampling.top_p = 0.6f;  // 0.5 alone does not reach it, 0.5 + 0.3 does
  seen.clear();
  const std::vector<float> logits = {std::log(0.2f), std::log(0.5f), std::log(0.3f)};
  for (int position = 0; position < 500; ++position) seen.insert(sample(logits, request, position));
  EXPECT_EQ(seen, (std::set<int32_t>{1, 2}));
}

TEST(Sampler, DependsOnSeedChoiceAndPositionAlone) {
  EXPECT_EQ(random_bits(1, 2, 3), random_bits(1, 2, 3));
  std::set<uint64_t> values;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    for (int32_t choice = 0; choice < 10; ++choice) {
      for (int32_t position = 0; position < 10; ++position) values.insert(random_bits(seed, choice, position));
    }
  }
  EXPECT_EQ(values.size(), 1000u);
}

TEST(Sampler, StopTokensWaitForTheMinimumLength) {
  GenerationRequest request;
  request.min_new_tokens = 2;
  request.stop_token_ids = {1, 7000};  // one beyond the vocabulary does no harm
  EXPECT_EQ(sample({0.0f, 9.0f, 1.0f}, request, 0), 2);
  EXPECT_EQ(sample({0.0f, 9.0f, 1.0f}, request, 1), 2);
  EXPECT_EQ(sample({0.0f, 9.0f, 1.0f}, request, 2), 1);
}

TEST(NegativeLogLikelihood, MatchesTheDefinition) {
  const std::vector<float> logits = {1000.0f, 999.0f, 0.0f};
  EXPECT_NEAR(negative_log_likelihood(logits, 1), 1.0 + std::log1p(std::exp(-1.0)), 1e-9);
}

}  // namespace
}  // namespace skipper

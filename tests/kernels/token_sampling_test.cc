#include "kernels/token_sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

namespace skipper {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

int32_t sample(std::vector<float> logits, const TokenSampling& sampling) { return sample_token(logits, sampling); }

// Of many draws, how often each token came.
std::map<int32_t, double> shares(const std::vector<float>& logits, TokenSampling sampling, int num_draws = 20000) {
  std::mt19937_64 generator(7);
  std::map<int32_t, double> result;
  for (int i = 0; i < num_draws; ++i) {
    sampling.random = generator();
    result[sample(logits, sampling)] += 1.0 / num_draws;
  }
  return result;
}

std::set<int32_t> tokens_seen(const std::vector<float>& logits, const TokenSampling& sampling) {
  std::set<int32_t> seen;
  for (const auto& [token, share] : shares(logits, sampling, 500)) seen.insert(token);
  return seen;
}

TEST(SampleToken, GreedyTakesTheLargestLogitAndTheLowestIdOnTies) {
  EXPECT_EQ(sample({0.0f, 3.0f, 3.0f, 1.0f}, {}), 1);
  EXPECT_EQ(sample({-2.0f}, {}), 0);
  EXPECT_EQ(sample({1.0f, kInfinity, kInfinity}, {}), 1);
}

TEST(SampleToken, OneCandidateIsGreedyThoughOthersAreAsLikelyToWithinRounding) {
  const std::vector<float> logits = {1.0f, std::nextafter(1.0f, 2.0f)};
  EXPECT_EQ(tokens_seen(logits, {.temperature = 100.0f, .top_k = 1}), (std::set<int32_t>{1}));
  EXPECT_EQ(tokens_seen(logits, {.temperature = 100.0f, .top_p = 0.0f}), (std::set<int32_t>{1}));
  EXPECT_EQ(tokens_seen(logits, {.temperature = 100.0f}), (std::set<int32_t>{0, 1}));
}

TEST(SampleToken, NaNNeverWins) {
  EXPECT_EQ(sample({kNaN, -5.0f, kNaN}, {}), 1);
  EXPECT_EQ(tokens_seen({kNaN, -5.0f, kNaN}, {.temperature = 1.0f}), (std::set<int32_t>{1}));
  EXPECT_EQ(sample({kNaN, kNaN}, {.temperature = 1.0f}), 0);
}

TEST(SampleToken, FollowsTheSoftmax) {
  const std::vector<float> logits = {std::log(0.5f), -kInfinity, std::log(0.3f), std::log(0.2f)};
  std::map<int32_t, double> even = shares(logits, {.temperature = 1.0f});
  EXPECT_NEAR(even[0], 0.5, 0.015);
  EXPECT_NEAR(even[2], 0.3, 0.015);
  EXPECT_NEAR(even[3], 0.2, 0.015);
  EXPECT_EQ(even.count(1), 0u);
  // Squares of the probabilities, made to sum to 1.
  std::map<int32_t, double> sharpened = shares(logits, {.temperature = 0.5f});
  EXPECT_NEAR(sharpened[0], 0.25 / 0.38, 0.015);
  EXPECT_NEAR(sharpened[2], 0.09 / 0.38, 0.015);
}

TEST(SampleToken, InfiniteLogitsShareTheDraw) {
  EXPECT_EQ(tokens_seen({1.0f, kInfinity, 5.0f, kInfinity}, {.temperature = 1.0f}), (std::set<int32_t>{1, 3}));
}

TEST(SampleToken, TheSmallestTemperatureLeavesOnlyTheLargest) {
  for (const float temperature : {1e-5f, 1e-37f, 1e-40f, std::numeric_limits<float>::denorm_min()}) {
    EXPECT_EQ(tokens_seen({1.0f, 2.0f, -500.0f}, {.temperature = temperature}), (std::set<int32_t>{1})) << temperature;
  }
}

TEST(SampleToken, TopKTakesTheLowerIdsOfEquals) {
  EXPECT_EQ(tokens_seen({1.0f, 1.1f, 1.2f, 0.9f}, {.temperature = 1.0f, .top_k = 2}), (std::set<int32_t>{1, 2}));
  EXPECT_EQ(tokens_seen({1.0f, 2.0f, 1.0f, 1.0f}, {.temperature = 1.0f, .top_k = 3}), (std::set<int32_t>{0, 1, 2}));
  EXPECT_EQ(tokens_seen({1.0f, 2.0f}, {.temperature = 1.0f, .top_k = 9}), (std::set<int32_t>{0, 1}));
}

TEST(SampleToken, TopPTakesTheShortestBeginningThatReachesIt) {
  const std::vector<float> logits = {std::log(0.2f), std::log(0.5f), std::log(0.3f)};
  EXPECT_EQ(tokens_seen(logits, {.temperature = 1.0f, .top_p = 0.6f}), (std::set<int32_t>{1, 2}));
  EXPECT_EQ(tokens_seen(logits, {.temperature = 1.0f, .top_p = 0.4f}), (std::set<int32_t>{1}));
  EXPECT_EQ(tokens_seen(logits, {.temperature = 1.0f, .top_p = 0.9f}), (std::set<int32_t>{0, 1, 2}));
  // Of four equals exactly half.
  EXPECT_EQ(tokens_seen({1.0f, 1.0f, 1.0f, 1.0f}, {.temperature = 1.0f, .top_p = 0.5f}), (std::set<int32_t>{0, 1}));
}

TEST(SampleToken, TopPIsAShareOfWhatTopKLeaves) {
  const std::vector<float> logits = {std::log(0.4f), std::log(0.4f), std::log(0.1f), std::log(0.1f)};
  EXPECT_EQ(tokens_seen(logits, {.temperature = 1.0f, .top_p = 0.45f}), (std::set<int32_t>{0, 1}));
  EXPECT_EQ(tokens_seen(logits, {.temperature = 1.0f, .top_p = 0.45f, .top_k = 2}), (std::set<int32_t>{0}));
}

TEST(SampleToken, NeverTakesAForbiddenTokenUnlessAllAre) {
  const std::vector<int32_t> first_two = {1, 0, 7000, -3}, all = {0, 1, 2};
  EXPECT_EQ(sample({5.0f, 9.0f, 1.0f}, {.forbidden = first_two}), 2);
  EXPECT_EQ(tokens_seen({5.0f, 9.0f, 1.0f}, {.temperature = 1.0f, .forbidden = first_two}), (std::set<int32_t>{2}));
  EXPECT_EQ(sample({5.0f, 9.0f, 1.0f}, {.forbidden = all}), 1);
  EXPECT_EQ(tokens_seen({5.0f, 9.0f, 1.0f}, {.temperature = 1.0f, .forbidden = all}), (std::set<int32_t>{1}));
}

// The same in real numbers, by the textbook.
int32_t sample_in_doubles(const std::vector<float>& logits, const TokenSampling& sampling) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (sampling.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(sampling.top_k)));
  std::vector<double> mass(logits.size(), 0.0);
  const auto mass_of = [&](size_t id) {
    const double distance = static_cast<double>(logits[order[0]]) - static_cast<double>(logits[id]);
    return std::exp(-distance / static_cast<double>(sampling.temperature));
  };
  double total = 0.0, kept = 0.0;
  for (const size_t id : order) total += mass_of(id);
  for (const size_t id : order) {
    if (kept >= static_cast<double>(sampling.top_p) * total) break;
    kept += mass[id] = mass_of(id);
  }
  double left = static_cast<double>(sampling.random >> 11) * 0x1p-53 * kept;
  for (size_t id = 0; id < mass.size(); ++id) {
    left -= mass[id];
    if (left < 0.0) return static_cast<int32_t>(id);
  }
  return static_cast<int32_t>(order[0]);
}

TEST(SampleToken, DrawsWhatRealNumbersWouldDraw) {
  std::mt19937_64 generator(3);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  constexpr int kDraws = 2000;
  int num_different = 0;
  for (int i = 0; i < kDraws; ++i) {
    std::vector<float> logits(1 + generator() % 2000);
    for (float& logit : logits) logit = normal(generator);
    const TokenSampling sampling{.temperature = 0.3f + 0.1f * static_cast<float>(i % 13),
                                 .top_p = i % 3 == 0 ? 1.0f : 0.9f,
                                 .top_k = i % 2 == 0 ? 0 : 40,
                                 .random = generator()};
    num_different += sample(logits, sampling) != sample_in_doubles(logits, sampling) ? 1 : 0;
  }
  EXPECT_LT(num_different, 3);  // a draw at the very border of two tokens
}

TEST(PackedTokenSampling, HoldsWhatTheSamplingSays) {
  const std::vector<int32_t> stop = {5, 2}, many(11, 1);
  const PackedTokenSampling drawn = packed({.temperature = 0.5f, .top_p = 0.9f, .top_k = 3, .random = 77, .forbidden = stop});
  EXPECT_EQ(drawn.temperature, 0.5f);
  EXPECT_EQ(drawn.top_p, 0.9f);
  EXPECT_EQ(drawn.top_k, 3);
  EXPECT_EQ(drawn.random, 77u);
  EXPECT_EQ(drawn.num_forbidden, 2);
  EXPECT_EQ(drawn.forbidden[0], 5);
  EXPECT_EQ(drawn.forbidden[1], 2);
  EXPECT_EQ(packed({.temperature = 0.5f, .top_k = 1}).temperature, 0.0f);
  EXPECT_EQ(packed({.temperature = 0.5f, .top_p = 0.0f}).temperature, 0.0f);
  EXPECT_TRUE(PackedTokenSampling::can_hold({.forbidden = stop}));
  EXPECT_FALSE(PackedTokenSampling::can_hold({.forbidden = many}));
}

}  // namespace
}  // namespace skipper

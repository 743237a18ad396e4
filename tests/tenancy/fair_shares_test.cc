#include "tenancy/fair_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>

#include "base/error.h"

namespace skipper {
namespace {

using Shares = std::vector<int64_t>;

int64_t sum_of(const Shares& shares) { return std::accumulate(shares.begin(), shares.end(), int64_t{0}); }

int64_t sum_of_least(const std::vector<ShareClaim>& claims) {
  int64_t sum = 0;
  for (const ShareClaim& claim : claims) sum += claim.least;
  return sum;
}

// Small whole numbers, so that every division can be tried.
std::vector<ShareClaim> random_claims(std::mt19937& random, int count) {
  const auto between = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); };
  std::vector<ShareClaim> claims;
  for (int i = 0; i < count; ++i) {
    ShareClaim claim{.name = std::string(1, static_cast<char>('a' + i)), .weight = between(1, 4), .least = between(0, 3)};
    claim.most = claim.least + between(0, 8);
    claims.push_back(claim);
  }
  return claims;
}

// Bytes per weight from the poorest up, times 12, which every weight from 1 to 4 divides.
Shares levels_of(const std::vector<ShareClaim>& claims, const Shares& shares) {
  constexpr int64_t kMultipleOfWeights = 12;
  Shares levels;
  for (size_t i = 0; i < claims.size(); ++i) levels.push_back(shares[i] * kMultipleOfWeights / claims[i].weight);
  std::ranges::sort(levels);
  return levels;
}

// From the definition: of all divisions of all that can be given out, the one whose poorest has most, then whose second poorest,
// and so on.
Shares best_levels(const std::vector<ShareClaim>& claims, int64_t total) {
  int64_t sum_of_most = 0;
  for (const ShareClaim& claim : claims) sum_of_most += claim.most;
  Shares best, shares(claims.size());
  const std::function<void(size_t, int64_t)> choose = [&](size_t i, int64_t left) {
    if (i == claims.size()) {
      if (left == 0) best = std::max(best, levels_of(claims, shares));
      return;
    }
    for (shares[i] = claims[i].least; shares[i] <= std::min(claims[i].most, left); ++shares[i]) choose(i + 1, left - shares[i]);
  };
  choose(0, std::min(total, sum_of_most));
  return best;
}

TEST(FairShares, AreTheMaxMinFairOnesOfAllDivisions) {
  std::mt19937 random(17);
  for (int round = 0; round < 400; ++round) {
    const std::vector<ShareClaim> claims = random_claims(random, 1 + round % 4);
    for (int64_t total = sum_of_least(claims); total < sum_of_least(claims) + 30; total += 1 + round % 3) {
      const Shares shares = fair_shares(total, claims);
      ASSERT_LE(sum_of(shares), total);
      ASSERT_EQ(levels_of(claims, shares), best_levels(claims, total)) << "round " << round << ", total " << total;
    }
  }
}

TEST(FairShares, NeverFallWhenThereIsMore) {
  std::mt19937 random(18);
  for (int round = 0; round < 100; ++round) {
    const std::vector<ShareClaim> claims = random_claims(random, 5);
    Shares before(claims.size());
    for (int64_t total = sum_of_least(claims); total < 60; ++total) {
      const Shares shares = fair_shares(total, claims);
      for (size_t i = 0; i < claims.size(); ++i) ASSERT_GE(shares[i], before[i]) << "round " << round << ", total " << total;
      before = shares;
    }
  }
}

TEST(FairShares, DoNotDependOnTheOrderOfTheClaims) {
  std::mt19937 random(19);
  for (int round = 0; round < 100; ++round) {
    std::vector<ShareClaim> claims = random_claims(random, 6);
    const int64_t total = sum_of_least(claims) + round % 25;
    const auto by_name = [&] {
      const Shares shares = fair_shares(total, claims);
      std::vector<std::pair<std::string, int64_t>> named;
      for (size_t i = 0; i < claims.size(); ++i) named.emplace_back(claims[i].name, shares[i]);
      std::ranges::sort(named);
      return named;
    };
    const auto before = by_name();
    std::ranges::shuffle(claims, random);
    ASSERT_EQ(by_name(), before) << "round " << round;
  }
}

TEST(FairShares, AreThoseOfTheWorkedExample) {
  const std::vector<ShareClaim> claims = {{"a", 2, 0, 500}, {"b", 1, 0, 500}, {"c", 1, 0, 80}};
  EXPECT_EQ(fair_shares(600, claims), (Shares{346, 174, 80}));
}

TEST(FairShares, AreExactInBytesAtTheLargestSizesAndWeights) {
  std::vector<ShareClaim> claims;
  for (int i = 0; i < 64; ++i) {
    claims.push_back({.name = std::to_string(i), .weight = kMostShareWeight - i % 7, .least = 0, .most = kMostShareBytes});
  }
  const Shares shares = fair_shares(kMostShareBytes, claims);
  EXPECT_EQ(sum_of(shares), kMostShareBytes);
  for (size_t i = 0; i < claims.size(); ++i) {
    const double level = static_cast<double>(shares[i]) / static_cast<double>(claims[i].weight);
    EXPECT_NEAR(level, static_cast<double>(shares[0]) / static_cast<double>(claims[0].weight), 1e-3) << i;
  }
}

TEST(FairShares, LeaveOutWhatNobodyCanUse) {
  EXPECT_EQ(fair_shares(100, std::vector<ShareClaim>{{"a", 1, 0, 30}, {"b", 1, 10, 10}}), (Shares{30, 10}));
  EXPECT_TRUE(fair_shares(100, {}).empty());
}

TEST(FairShares, SayWhatIsMissingToWhatTenantsHaveInAnyCase) {
  const std::vector<ShareClaim> claims = {{"a", 1, 3'000'000, 4'000'000}, {"b", 1, 2'000'000, 4'000'000}};
  try {
    fair_shares(4'500'000, claims);
    FAIL();
  } catch (const ResourceExhausted& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("short by 0.5 MB"));
  }
  EXPECT_EQ(fair_shares(5'000'000, claims), (Shares{3'000'000, 2'000'000}));
}

TEST(JainIndex, IsOneForEqualValuesAndOneOverNForOneThatHasAll) {
  EXPECT_DOUBLE_EQ(jain_index(std::vector<double>{2.0, 2.0, 2.0}), 1.0);
  EXPECT_DOUBLE_EQ(jain_index(std::vector<double>{5.0, 0.0, 0.0, 0.0}), 0.25);
  EXPECT_DOUBLE_EQ(jain_index(std::vector<double>{1.0, 3.0}), 16.0 / 20.0);
  EXPECT_DOUBLE_EQ(jain_index({}), 1.0);
  EXPECT_DOUBLE_EQ(jain_index(std::vector<double>{0.0, 0.0}), 1.0);
}

}  // namespace
}  // namespace skipper

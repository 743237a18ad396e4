#include "expert_parallel/rank_capacity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/expert_parallel/frozen_routing.h"

namespace skipper {
namespace {

constexpr float kAlpha = 0.5f;
const std::vector<int> kFourRanks = {0, 0, 1, 1};

LevelTable capacity(float multiple_of_mean) {
  return table({point_with([&](OperatingPoint& p) { p.rank_capacity = multiple_of_mean; })});
}

// Sends the first slot of most tokens to rank 0.
Frozen skewed_routing(int64_t num_tokens, uint32_t seed) {
  Frozen frozen = text_routing(num_tokens, seed);
  for (int64_t t = 0; t < num_tokens; ++t) {
    int32_t* ids = frozen.routing.expert_ids.row<int32_t>(t);
    if (t % 4 != 0 && std::find(ids, ids + kTopK, 0) == ids + kTopK) ids[0] = 0;
    if (t % 4 != 0 && std::find(ids, ids + kTopK, 1) == ids + kTopK && ids[1] != 0) ids[1] = 1;
  }
  return frozen;
}

std::vector<int64_t> load_of(const Skipped& skipped, size_t num_tokens) {
  std::vector<int64_t> load(kFourRanks.size());
  for (size_t t = 0; t < num_tokens; ++t) {
    for (const int32_t id : skipped.ids(t)) {
      if (id != kNoExpert) ++load[static_cast<size_t>(rank_of_expert(id, kFourRanks.size()))];
    }
  }
  return load;
}

Skipped unskipped(const Frozen& frozen) { return {.kept = frozen.routing, .counters = {}}; }

TEST(ScoreBucket, RisesWithTheScoreFourTimesToAPowerOfTwo) {
  int last = -1;
  for (int step = -64; step <= 0; ++step) {
    const int bucket = score_bucket(std::exp2(static_cast<float>(step) / 4.0f) * 1.0001f);
    EXPECT_GE(bucket, last);
    last = bucket;
  }
  EXPECT_EQ(score_bucket(0.0f), 0);
  EXPECT_EQ(score_bucket(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(score_bucket(0.999f), kNumScoreBuckets - 1);
  EXPECT_EQ(score_bucket(1.0f), kNumScoreBuckets - 1);
  EXPECT_EQ(score_bucket(1e30f), kNumScoreBuckets - 1);
  EXPECT_EQ(score_bucket(0.5f), kNumScoreBuckets - 4);
  EXPECT_EQ(score_bucket(0x1p-16f), 0);
}

TEST(RankCapacity, NoRankKeepsMoreThanItsShareAndOthersLoseNothing) {
  for (const int64_t num_tokens : {1, 7, 64, 211}) {
    const Frozen frozen = skewed_routing(num_tokens, 3);
    const auto before = load_of(unskipped(frozen), frozen.num_tokens());
    const double mean = static_cast<double>(num_tokens) * kTopK / 4.0;
    for (const float multiple : {1.0f, 1.2f, 1.6f}) {
      const auto after = load_of(skip(frozen, capacity(multiple), kFourRanks), frozen.num_tokens());
      for (size_t rank = 0; rank < 4; ++rank) {
        EXPECT_LE(static_cast<double>(after[rank]), double{multiple} * mean);
        if (static_cast<double>(before[rank]) > double{multiple} * mean) continue;
        EXPECT_EQ(after[rank], before[rank]);
      }
    }
  }
}

TEST(RankCapacity, TakesTheLeastImportantPairsUpToOneBucket) {
  const Frozen frozen = skewed_routing(180, 5);
  const Skipped skipped = skip(frozen, capacity(1.1f), kFourRanks);
  const double limit = double{1.1f} * 180.0;
  std::vector<float> scores;  // of rank 0
  float largest_dropped = 0.0f, smallest_kept = 1.0f;
  size_t num_kept = 0;
  for (size_t t = 0; t < frozen.num_tokens(); ++t) {
    for (size_t j = 0; j < kTopK; ++j) {
      if (rank_of_expert(frozen.ids(t)[j], 4) != 0) continue;
      const float s = kAlpha * frozen.weights(t)[j];
      scores.push_back(s);
      const bool is_kept = skipped.ids(t)[j] != kNoExpert;
      num_kept += is_kept ? 1 : 0;
      if (is_kept) smallest_kept = std::min(smallest_kept, s);
      if (!is_kept) largest_dropped = std::max(largest_dropped, s);
    }
  }
  ASSERT_GT(static_cast<double>(scores.size()), limit);
  EXPECT_LE(score_bucket(largest_dropped), score_bucket(smallest_kept));
  EXPECT_LE(largest_dropped, smallest_kept * 1.0001f);
  // Exactly the best would keep the first floor(limit); whole buckets leave less than one bucket out.
  std::ranges::sort(scores, std::greater<>());
  const auto best = static_cast<size_t>(limit);
  EXPECT_LE(num_kept, best);
  const int bucket_at_limit = score_bucket(scores[best]);
  const auto above = std::ranges::count_if(scores, [&](float s) { return score_bucket(s) > bucket_at_limit; });
  EXPECT_GE(num_kept, static_cast<size_t>(above));
}

TEST(RankCapacity, IsTheIdentityWithRoomForAllAndOnOneRank) {
  const Frozen frozen = skewed_routing(90, 7);
  EXPECT_EQ(total(skip(frozen, capacity(4.0f), kFourRanks).counters.pairs_skipped), 0);
  EXPECT_EQ(total(skip(frozen, capacity(1.0f)).counters.pairs_skipped), 0);
}

TEST(RankCapacity, GoesOnWhereARankHasNoTokens) {
  const Frozen frozen = skewed_routing(3, 9);  // rank 3 has none
  const auto after = load_of(skip(frozen, capacity(1.0f), kFourRanks), 3);
  for (const int64_t load : after) EXPECT_LE(load, 3);
  EXPECT_EQ(skip(frozen.subset({}), capacity(1.0f), kFourRanks).kept.expert_ids.dim(0), 0);
}

TEST(RankCapacity, TokensOutsideTheRuleKeepTheirPairsAndTakeTheRoomFirst) {
  Frozen frozen = skewed_routing(120, 11);
  LevelTable levels = table({point({kAlpha, kAlpha}, {0.0f, 0.0f}), capacity(1.0f).levels[0]});
  for (size_t t = 0; t < 120; ++t) frozen.set_level(t, t % 3 == 0 ? 0 : 1);
  const Skipped skipped = skip(frozen, levels, kFourRanks);
  for (size_t t = 0; t < 120; t += 3) EXPECT_TRUE(std::ranges::equal(skipped.ids(t), frozen.ids(t)));
  EXPECT_GT(total(skipped.counters.pairs_skipped), 0);
  for (const int64_t load : load_of(skipped, 120)) EXPECT_LE(load, 120);
}

TEST(RankCapacity, EachLevelHasALimitOfItsOwn) {
  Frozen frozen = skewed_routing(160, 13);
  LevelTable levels = table({capacity(1.0f).levels[0], capacity(3.9f).levels[0]});
  for (size_t t = 0; t < 160; ++t) frozen.set_level(t, static_cast<uint8_t>(t % 2));
  const Skipped skipped = skip(frozen, levels, kFourRanks);
  for (size_t t = 1; t < 160; t += 2) EXPECT_TRUE(std::ranges::equal(skipped.ids(t), frozen.ids(t)));
  EXPECT_GT(total(skipped.counters.pairs_skipped), 0);
}

}  // namespace
}  // namespace skipper

#include "expert_parallel/rank_capacity.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace skipper {

namespace {

constexpr int kBucketBits = 2;       // of the mantissa: four buckets to a power of two
constexpr int kSmallestPower = -16;  // 64 buckets reach from here to 1
constexpr int kMantissaBits = 23;
constexpr int kExponentBias = 127;
static_assert(kNumScoreBuckets == -kSmallestPower << kBucketBits);

// Calls visit(rules, score, id, is_inside) for every pair still there; `is_inside` if the limit may take it.
template <typename Visit>
void for_each_kept_pair(const SkipBatch& batch, const Visit& visit) {
  for (int64_t token = 0; token < batch.rules.num_tokens(); ++token) {
    const TokenRules& rules = batch.rules.of(token);
    const PairShares shares(pairs_of(batch.routed, token));
    const bool token_is_inside = rules.rank_capacity > 0.0f && !keeps_all_pairs(shares, rules);
    int32_t* ids = batch.kept_ids.row<int32_t>(token);
    for (size_t slot = 0; slot < shares.pairs().num_slots(); ++slot) {
      if (ids[slot] == kNoExpert) continue;
      const bool is_inside = token_is_inside && !is_spared(shares, rules, slot);
      visit(rules, is_inside ? pair_score(shares, rules, slot) : 0.0f, ids[slot], is_inside);
    }
  }
}

}  // namespace

// A positive float's bits rise with its value, so the exponent and the top of the mantissa number the buckets.
int score_bucket(float s) {
  constexpr int kFirst = (kExponentBias + kSmallestPower) << kBucketBits;
  const auto bits = static_cast<int>(std::bit_cast<uint32_t>(std::max(s, 0.0f)) >> (kMantissaBits - kBucketBits));
  return std::clamp(bits - kFirst, 0, kNumScoreBuckets - 1);
}

void RankLoad::clear(int num_ranks) {
  num_ranks_ = num_ranks;
  counts_.assign(static_cast<size_t>(num_ranks) * kStride, 0.0);
}

double RankLoad::mean() const { return std::accumulate(counts_.begin(), counts_.end(), 0.0) / num_ranks_; }

void RankLoad::set_limit(double limit) {
  first_kept_.resize(static_cast<size_t>(num_ranks_));
  for (int rank = 0; rank < num_ranks_; ++rank) first_kept_[static_cast<size_t>(rank)] = first_bucket_within(rank, limit);
}

int RankLoad::first_bucket_within(int rank, double limit) const {
  const double* counts = counts_.data() + first_of(rank);
  double kept = counts[0];
  for (int bucket = kNumScoreBuckets; bucket-- > 0;) {
    kept += counts[1 + bucket];
    if (counts[1 + bucket] > 0.0 && kept > limit) return bucket + 1;
  }
  return 0;
}

bool any_level_limits_ranks(const LevelTable& levels) {
  return std::ranges::any_of(levels.levels, [](const OperatingPoint& point) { return point.rank_capacity > 0.0f; });
}

void limit_rank_load(const SkipBatch& batch, RankLoad& load, Communicator& data, Stream& stream) {
  const Destinations& destinations = batch.destinations;
  load.clear(data.size());
  for_each_kept_pair(batch, [&](const TokenRules&, float score, int32_t id, bool is_inside) {
    const int rank = destinations.rank_of(id);
    is_inside ? load.add(rank, score) : load.add_fixed(rank);
  });
  data.all_reduce_sum(load.counts(), stream);
  const double mean = load.mean();
  float capacity = 0.0f;  // that the limit was set for: neighbours mostly share their level
  for_each_kept_pair(batch, [&](const TokenRules& rules, float score, int32_t& id, bool is_inside) {
    if (!is_inside) return;
    if (rules.rank_capacity != capacity) {
      capacity = rules.rank_capacity;
      load.set_limit(double{capacity} * mean);
    }
    if (score_bucket(score) < load.first_kept_bucket(destinations.rank_of(id))) id = kNoExpert;
  });
}

}  // namespace skipper

// Takes the least important pairs from ranks that have more than their share: a layer takes as long as its slowest rank.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "expert_parallel/token_rules.h"

namespace skipper {

inline constexpr int kNumScoreBuckets = 64;

// The bucket of a score: four to each power of two between 2^-16 and 1, everything below in the first. Never falls as s rises.
int score_bucket(float s);

// The pairs that go to each rank, by bucket. Plain sums, so that histograms of ranks add up element by element.
class RankLoad {
 public:
  void clear(int num_ranks);

  void add_fixed(int rank) { counts_[first_of(rank)] += 1.0; }  // a pair that no limit may take
  void add(int rank, float s) { counts_[first_of(rank) + 1 + static_cast<size_t>(score_bucket(s))] += 1.0; }

  double mean() const;  // pairs of all ranks divided by the number of ranks
  // Finds for each rank the first bucket that it keeps so that it keeps at most `limit` pairs, or its fixed ones if they are
  // more; 0 where it is not over the limit.
  void set_limit(double limit);
  int first_kept_bucket(int rank) const { return first_kept_[static_cast<size_t>(rank)]; }

  std::span<double> counts() { return counts_; }

 private:
  static constexpr size_t kStride = 1 + kNumScoreBuckets;
  static size_t first_of(int rank) { return static_cast<size_t>(rank) * kStride; }

  int first_bucket_within(int rank, double limit) const;

  int num_ranks_ = 0;
  std::vector<double> counts_;   // [ranks][fixed, buckets]
  std::vector<int> first_kept_;  // [ranks] under the limit set last
};

bool any_level_limits_ranks(const LevelTable& levels);

// rank_capacity: a rank keeps, over the tokens of all ranks, the pairs with the largest scores until it has rank_capacity times
// the mean of what all ranks were to run; pairs of one bucket go together. Tokens outside the rule (their level has no capacity,
// protected, rare) keep theirs and are counted first. Every rank adds the same histograms in the same order and so finds the
// same buckets. One all-reduce: all ranks call this together, also with no tokens, iff any_level_limits_ranks().
// batch.kept_ids may be the routed ids while no token here has the rule.
void limit_rank_load(const SkipBatch& batch, RankLoad& load, Communicator& data, Stream& stream);

}  // namespace skipper

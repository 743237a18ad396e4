// How unevenly a load falls on those who carry it: experts, or ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "expert_parallel/expert_placement.h"

namespace skipper {

// Largest load divided by the mean: how much longer the others wait. 1 when it is even, also when there is none; n when one of
// n carries all.
double max_over_mean(std::span<const int64_t> loads);

// 0 when it is even, also when there is none; 1 − 1/n when one of n carries all. (Half the mean absolute difference of two
// loads, relative to the mean.)
double gini(std::span<const int64_t> loads);

// What falls on each rank when expert e carries expert_loads[e].
std::vector<int64_t> loads_of_ranks(std::span<const int64_t> expert_loads, std::span<const ExpertHome> homes, int world_size);

struct LoadBalance {
  int64_t num_pairs = 0;
  double rank_max_over_mean = 1.0;
  double rank_gini = 0.0;
  double expert_max_over_mean = 1.0;
  double expert_gini = 0.0;
};

LoadBalance balance_of(std::span<const int64_t> expert_loads, std::span<const ExpertHome> homes, int world_size);

}  // namespace skipper

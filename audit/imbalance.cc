#include "audit/imbalance.h"

#include <glog/logging.h>

#include <algorithm>
#include <numeric>

namespace skipper {

namespace {

int64_t sum_of(std::span<const int64_t> loads) { return std::accumulate(loads.begin(), loads.end(), int64_t{0}); }

}  // namespace

double max_over_mean(std::span<const int64_t> loads) {
  const int64_t sum = sum_of(loads);
  if (sum == 0) return 1.0;
  const auto largest = static_cast<double>(*std::max_element(loads.begin(), loads.end()));
  return largest * static_cast<double>(loads.size()) / static_cast<double>(sum);
}

double gini(std::span<const int64_t> loads) {
  const int64_t sum = sum_of(loads);
  if (sum == 0) return 0.0;
  std::vector<int64_t> ascending(loads.begin(), loads.end());
  std::sort(ascending.begin(), ascending.end());
  const auto n = static_cast<double>(ascending.size());
  double weighted = 0.0;  // Σ (2i − n − 1) · x_i over ascending x, i from 1
  for (size_t i = 0; i < ascending.size(); ++i) {
    weighted += (2.0 * static_cast<double>(i) + 1.0 - n) * static_cast<double>(ascending[i]);
  }
  return weighted / (n * static_cast<double>(sum));
}

std::vector<int64_t> loads_of_ranks(std::span<const int64_t> expert_loads, std::span<const ExpertHome> homes, int world_size) {
  CHECK_EQ(expert_loads.size(), homes.size());
  std::vector<int64_t> loads(static_cast<size_t>(world_size), 0);
  for (size_t expert = 0; expert < homes.size(); ++expert) loads[static_cast<size_t>(homes[expert].rank)] += expert_loads[expert];
  return loads;
}

LoadBalance balance_of(std::span<const int64_t> expert_loads, std::span<const ExpertHome> homes, int world_size) {
  const std::vector<int64_t> ranks = loads_of_ranks(expert_loads, homes, world_size);
  return {.num_pairs = sum_of(expert_loads),
          .rank_max_over_mean = max_over_mean(ranks),
          .rank_gini = gini(ranks),
          .expert_max_over_mean = max_over_mean(expert_loads),
          .expert_gini = gini(expert_loads)};
}

}  // namespace skipper

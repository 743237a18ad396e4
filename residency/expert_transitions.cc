#include "residency/expert_transitions.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace skipper {

ExpertTransitions::ExpertTransitions(const ExpertCounts& counts)
    : counts_(counts), votes_(static_cast<size_t>(counts.num_experts)) {
  for (auto& table : num_followed_) table.resize(counts.total() * static_cast<size_t>(counts.num_experts));
}

uint32_t* ExpertTransitions::followers(int back, int layer, int32_t from) {
  const auto row = counts_.index({layer, from});
  return num_followed_[back - 1].data() + row * static_cast<size_t>(counts_.num_experts);
}

void ExpertTransitions::observe(int layer, std::span<const int32_t> experts) {
  for (int back = 1; back <= kLayersBack; ++back) {
    const Source& source = recent_[back - 1];
    if (source.layer != layer - back) continue;
    for (const int32_t from : source.experts) {
      for (const int32_t to : experts) ++followers(back, layer, from)[to];
    }
  }
  std::swap(recent_[0], recent_[1]);
  recent_[0].layer = layer;
  recent_[0].experts.assign(experts.begin(), experts.end());
}

std::vector<int32_t> ExpertTransitions::likely(int layer, size_t count) {
  std::ranges::fill(votes_, 0.0);
  for (int back = 1; back <= kLayersBack; ++back) {
    const Source& source = recent_[back - 1];
    if (source.layer != layer - back) continue;
    for (const int32_t from : source.experts) {
      const uint32_t* row = followers(back, layer, from);
      const double total = std::accumulate(row, row + votes_.size(), 0.0);
      for (size_t to = 0; to < votes_.size() && total > 0.0; ++to) votes_[to] += row[to] / total;
    }
  }
  std::vector<int32_t> order(votes_.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::ranges::greater{}, [&](int32_t e) { return votes_[static_cast<size_t>(e)]; });
  order.resize(std::min(count, order.size()));
  std::erase_if(order, [&](int32_t e) { return votes_[static_cast<size_t>(e)] <= 0.0; });
  return order;
}

}  // namespace skipper

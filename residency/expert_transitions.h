// Which experts of a layer follow those of the two layers before: EdgeMoE's table, learnt while it is used.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "residency/eviction_policy.h"

namespace skipper {

// EdgeMoE keys its table by the whole route through two layers; with 8 of 128 experts almost every such key is new. Here every
// expert of the two layers votes with the shares of its followers. Engine thread only.
class ExpertTransitions {
 public:
  explicit ExpertTransitions(const ExpertCounts& counts);

  // The experts of the layer that ran last, in order of layers; a lower layer than before begins a new step.
  void observe(int layer, std::span<const int32_t> experts);
  // Up to `count` experts of `layer`, the likeliest first, after what was observed last; none where nobody votes.
  std::vector<int32_t> likely(int layer, size_t count);

 private:
  static constexpr int kLayersBack = 2;
  struct Source {
    int layer = -1;
    std::vector<int32_t> experts;
  };
  // counts_[back − 1][layer][from][to]: how often `to` of the layer ran when `from` did so many layers before.
  uint32_t* followers(int back, int layer, int32_t from);

  ExpertCounts counts_;
  std::vector<uint32_t> num_followed_[kLayersBack];
  Source recent_[kLayersBack];  // of the layer before, and of the one before that
  std::vector<double> votes_;
};

}  // namespace skipper

// Frozen router outputs, and what skipping makes of them on one or several ranks.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cluster/operating_point.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"
#include "expert_parallel/traffic_counters.h"

namespace skipper {

inline constexpr size_t kTopK = 4;
inline constexpr size_t kNumExperts = 16;
inline constexpr size_t kNumLayers = 3;
inline constexpr int kLayer = 1;
// Nodes of three ranks: two of one, one of another.
inline const std::vector<int> kThreeRanks = {0, 0, 1};

// Descending weights that sum to 1.
struct Frozen {
  Routing routing;
  TokenPolicies policies;

  size_t num_tokens() const { return static_cast<size_t>(routing.expert_ids.dim(0)); }
  std::span<const int32_t> ids(size_t token) const {
    return {routing.expert_ids.row<int32_t>(static_cast<int64_t>(token)), kTopK};
  }
  std::span<const float> weights(size_t token) const {
    return {routing.expert_weights.row<float>(static_cast<int64_t>(token)), kTopK};
  }
  TokenClass token_class(size_t token) const { return TokenClass{policies.token_class.data<uint8_t>()[token]}; }
  uint8_t level(size_t token) const { return policies.level.data<uint8_t>()[token]; }
  void set_class(TokenClass token_class);  // of all tokens
  void set_phase(TokenPhase phase);
  void set_level(size_t token, uint8_t level) { policies.level.data<uint8_t>()[token] = level; }
  // The tokens listed, in that order.
  Frozen subset(const std::vector<size_t>& tokens) const;
};

Frozen random_routing(int64_t num_tokens, uint32_t num_levels, uint32_t seed);
// Of one level, text alone.
Frozen text_routing(int64_t num_tokens, uint32_t seed);
// `top_k` ids of each token; weights 0.
Routing routing_of(const std::vector<int32_t>& ids, int64_t top_k);

// Values of text and vision; alpha is that of kLayer.
OperatingPoint point(std::array<float, 2> alpha, std::array<float, 2> tau);
// Alpha of one half; `change` sets the rest.
OperatingPoint point_with(const std::function<void(OperatingPoint&)>& change);
LevelTable table(std::vector<OperatingPoint> points);

struct Skipped {
  Routing kept;
  TrafficCounters counters;

  std::span<const int32_t> ids(size_t token) const {
    return {kept.expert_ids.row<int32_t>(static_cast<int64_t>(token)), kTopK};
  }
  std::span<const float> weights(size_t token) const {
    return {kept.expert_weights.row<float>(static_cast<int64_t>(token)), kTopK};
  }
};

// Token t belongs to rank t % node_of_rank.size().
Skipped skip(const Frozen& frozen, const LevelTable& levels, const std::vector<int>& node_of_rank = {0});

// Rank of an expert where they are placed contiguously.
int rank_of_expert(int32_t expert, size_t num_ranks);

int64_t total(const std::array<int64_t, kNumTokenClasses>& counts);

}  // namespace skipper

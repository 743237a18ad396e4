// What caches of some sizes would have made of recorded routes, as a table and as JSON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "residency/cache_replay.h"

namespace skipper {

// Of `skipper replay --cache`.
struct CacheSizes {
  std::vector<int> num_experts;  // of each cache, at least 1
  size_t expert_bytes = 0;       // of one expert; 0: not known
};

// "24", "24,96" (experts) or "20M,1G" (bytes, in which experts of `expert_bytes` lie). Throws UsageError naming the flag for what
// is neither, for bytes where expert_bytes is 0, and for a cache that holds no expert.
CacheSizes parse_cache_sizes(const std::string& text, size_t expert_bytes);

struct CacheForecast {
  int num_experts = 0;  // that it holds
  ReplayResult rules[kNumEvictionRules];  // in the order of EvictionRule
  ReplayResult optimum;
  // kEdge with an oracle that reads so many experts in the time of a layer: 1, 2, 4, and as many as needed.
  static constexpr int kNumOracles = 4;
  ReplayResult oracles[kNumOracles];
};

struct RouteForecast {
  ExpertCounts counts;
  int64_t num_runs = 0;  // of layers
  int64_t num_needs = 0;
  size_t expert_bytes = 0;  // 0: not known
  RouteLaw law;             // what the trace shows
  ForesightResult table;    // ExpertTransitions
  std::vector<CacheForecast> caches;
};

RouteForecast forecast(const RouteTrace& trace, const CacheSizes& sizes);

// Hit rates in per cent of the needs.
std::string to_table(const RouteForecast& forecast);
// {"moe_layers":n,"experts":n,"layer_runs":n,"needs":n,"expert_bytes":n|null,"law":{"skew":x,"repeat":x,"follow":x},
//  "table_recall":x,"caches":[{"experts":n,"hit_rate":{"lru":x,"lfu":x,"edge":x,"belady":x},
//                              "oracle":{"1":x,"2":x,"4":x,"all":x}}]}; rates from 0 to 1.
std::string to_json(const RouteForecast& forecast);

}  // namespace skipper

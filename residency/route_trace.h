// Which experts a model needed, step by step and layer by layer: recorded, or drawn at random with a given skew.
#pragma once

#include <cstdint>
#include <vector>

#include "residency/eviction_policy.h"

namespace skipper {

// The experts that one layer needed in one step, each once.
struct RouteSet {
  int layer = 0;
  std::vector<int32_t> experts;
};

// In the order in which they ran.
struct RouteTrace {
  ExpertCounts counts;
  std::vector<RouteSet> sets;

  int64_t num_needs() const;
};

// How routes drawn at random behave; the defaults are close to those of models/demo on its calibration data.
struct RouteLaw {
  int top_k = 8;
  // Use of the expert on rank r of a layer is proportional to 1 / (r + 1)^skew.
  double skew = 0.6;
  // Share of a token's experts that the token before it had as well, in the same layer.
  double repeat = 0.3;
  // Share of the others that follow from the experts of the layer before.
  double follow = 0.4;
};

// One token a step. The same seed gives the same trace.
RouteTrace draw_routes(const ExpertCounts& counts, const RouteLaw& law, int64_t num_steps, uint32_t seed);

// What of RouteLaw a trace shows: fitted skew, and the shares.
RouteLaw law_of(const RouteTrace& trace);

}  // namespace skipper

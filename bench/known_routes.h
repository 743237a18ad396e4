// Eviction and foresight by one who knows all routes in advance: the ceilings, and the floor, of what rules can reach.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "residency/eviction_policy.h"
#include "residency/expert_predictor.h"
#include "residency/route_trace.h"

namespace skipper {

// Where in a trace a model is. Engine thread only.
struct RouteCursor {
  const RouteTrace& trace;
  int64_t set = -1;  // that runs now; −1: none of the trace

  // What the next layer of the same step needs; null where there is none.
  const RouteSet* next() const;
};

// All of these read `cursor`, which outlives them.

// Belady: of those in the cache the expert leaves whose next use is furthest.
std::unique_ptr<EvictionPolicy> make_belady_eviction(const RouteCursor& cursor);
// Names what the next layer needs.
std::unique_ptr<ExpertPredictor> make_oracle_predictor(const RouteCursor& cursor);
// Names as many experts that the next layer does not need, others from step to step.
std::unique_ptr<ExpertPredictor> make_wrong_predictor(const RouteCursor& cursor);

}  // namespace skipper

// What caches of some size would have made of a trace: each rule of eviction, and the most that any could.
#pragma once

#include <cstdint>
#include <vector>

#include "residency/route_trace.h"

namespace skipper {

struct ReplayResult {
  int64_t num_needs = 0;
  int64_t num_hits = 0;

  double hit_rate() const { return num_needs == 0 ? 0.0 : static_cast<double>(num_hits) / static_cast<double>(num_needs); }
};

// A cache of `num_frames` experts, at least 1. Of a layer's experts those that it holds come first and are held until the layer
// ends; where the others do not find room together, the layer runs in parts.
ReplayResult replay_rule(const RouteTrace& trace, int num_frames, EvictionRule rule);

// Belady's optimum: after each layer those stay whose next use is nearest. No cache of this size hits more often, even one that
// need not keep what it has read.
ReplayResult replay_optimum(const RouteTrace& trace, int num_frames);

// As replay_rule(), by an oracle that reads ahead: while a layer runs it knows what the next one needs, and up to `num_ahead`
// such experts that the cache lacks come in, in at most half of the frames (as in ExpertCache), and are hits then. It is the
// most that foresight of one layer can bring where the disk reads so many experts in the time of a layer.
ReplayResult replay_oracle(const RouteTrace& trace, int num_frames, EvictionRule rule, int num_ahead);

// How well a table of the two layers before (ExpertTransitions), learnt on the go, names the experts of the next.
struct ForesightResult {
  int64_t num_needs = 0;
  int64_t num_named = 0;  // of those needed, among as many as the layer needs

  double recall() const { return num_needs == 0 ? 0.0 : static_cast<double>(num_named) / static_cast<double>(num_needs); }
};
ForesightResult replay_transitions(const RouteTrace& trace);

}  // namespace skipper

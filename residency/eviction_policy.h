// Which expert leaves a full cache: the rules, free of memory and files, so that a replay of recorded routes runs the same code.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "experts/expert_id.h"
#include "residency/eviction_rule.h"

namespace skipper {

// How many experts there are, whichever of them a cache holds.
struct ExpertCounts {
  int num_layers = 0;
  int num_experts = 0;  // of a layer

  size_t total() const { return static_cast<size_t>(num_layers) * static_cast<size_t>(num_experts); }
  size_t index(const ExpertId& id) const {
    return static_cast<size_t>(id.layer) * static_cast<size_t>(num_experts) + static_cast<size_t>(id.expert);
  }
};

// Not thread-safe.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  // A layer needs the expert, whether the cache holds it or not.
  virtual void note_use(const ExpertId& id) = 0;
  // Who of the candidates leaves while MoE layer `layer` runs: an index into them, of which there is at least one.
  virtual size_t choose(std::span<const ExpertId> candidates, int layer) const = 0;
};

std::unique_ptr<EvictionPolicy> make_eviction_policy(EvictionRule rule, const ExpertCounts& counts);

}  // namespace skipper

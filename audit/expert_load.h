// Pairs that ran at their experts' owners, by MoE layer, token class and expert: counted on each rank for its own tokens, added
// up at rank 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cluster/token_class.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"

namespace skipper {

struct ExpertLoadShape {
  int num_moe_layers = 0;
  int num_experts = 0;

  size_t num_counts() const {
    return static_cast<size_t>(num_moe_layers) * kNumTokenClasses * static_cast<size_t>(num_experts);
  }
  // Where the experts of a layer and class start.
  size_t first_of(int moe_layer, size_t token_class) const {
    return (static_cast<size_t>(moe_layer) * kNumTokenClasses + token_class) * static_cast<size_t>(num_experts);
  }
};

// Sums since start of the rank. Engine thread only.
class ExpertLoad {
 public:
  explicit ExpertLoad(const ExpertLoadShape& shape) : shape_(shape), counts_(shape.num_counts(), 0) {}

  void count(int moe_layer, const TokenPolicies& policies, const Routing& kept);
  // What was counted elsewhere, as many numbers.
  void set(std::span<const int64_t> counts);

  const ExpertLoadShape& shape() const { return shape_; }
  std::span<const int64_t> counts() const { return counts_; }  // [MoE layers, classes, experts]

 private:
  ExpertLoadShape shape_;
  std::vector<int64_t> counts_;
};

}  // namespace skipper

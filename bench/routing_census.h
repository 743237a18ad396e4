// Counts how many different experts each layer runs in a step, over all ranks: what a step has to read.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "expert_parallel/moe_layer.h"
#include "model/model_config.h"

namespace skipper {

// Different experts of one layer in one step.
struct DistinctExperts {
  double mean = 0.0;  // over layers and steps
  int64_t min = 0;
  int64_t max = 0;
  double bytes_per_step = 0.0;  // of their weights, summed over the layers; mean over the steps
};

class RoutingCensus {
 public:
  // expert_bytes [MoE layers, experts], row by row.
  RoutingCensus(const ModelConfig& config, std::vector<double> expert_bytes)
      : num_layers_(config.num_moe_layers()), num_experts_(config.moe.num_experts), expert_bytes_(std::move(expert_bytes)) {}

  void start_step() { seen_.resize(seen_.size() + static_cast<size_t>(num_layers_ * num_experts_), 0.0); }
  // Of a layer in the step started last; a RoutingObserver.
  void observe(const MoeLayerConfig& layer, const Routing& kept);
  // Of all steps since the last call. All ranks call it together, after the same number of steps.
  DistinctExperts take(Communicator& data, Stream& stream);

 private:
  int64_t num_layers_;
  int64_t num_experts_;
  std::vector<double> expert_bytes_;
  std::vector<double> seen_;  // [steps, layers, experts], above 0 where a token went; doubles, as ranks add them up
};

}  // namespace skipper

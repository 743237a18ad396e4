// Which experts the next layer is likely to need, before its router has said so.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/linear.h"
#include "residency/eviction_policy.h"
#include "residency/residency_config.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// Engine thread only. What it says never changes a token, only what is read when.
class ExpertPredictor {
 public:
  virtual ~ExpertPredictor() = default;

  // What a layer runs, in the order of layers.
  virtual void observe(int layer, std::span<const int32_t> experts) = 0;
  // Up to `count` experts of `layer`, the likeliest first; tokens [N, H] bf16 or f32 as they came to the layer before.
  virtual std::vector<int32_t> predict(int layer, const Tensor& tokens, size_t count, Stream& stream) = 0;
};

// The routers of the MoE layers, as Router keeps them.
struct RouterGates {
  std::vector<PackedMatrix> gates;  // [MoE layer] of [E, H]
  int64_t top_k = 0;
};

// Null for ForesightRule::kNone.
std::unique_ptr<ExpertPredictor> make_expert_predictor(ForesightRule rule, const ExpertCounts& counts,
                                                       const RouterGates& routers);

}  // namespace skipper

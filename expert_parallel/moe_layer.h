// The MoE layer across ranks: route → skip → dispatch → experts → combine, and nothing else.
#pragma once

#include <cstdint>
#include <memory>

#include "cluster/operating_point.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_dispatcher.h"
#include "expert_parallel/traffic_counters.h"
#include "experts/expert_ffn.h"
#include "kernels/top_k_softmax.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

struct MoeLayerConfig {
  int layer = 0;      // index among all decoder layers, for messages and the audit
  int moe_layer = 0;  // index among the MoE layers, row of OperatingPoint::alpha
  int64_t hidden_size = 0;
  int64_t num_experts = 0;
  int64_t top_k = 0;
  TopKNormalization normalization = TopKNormalization::kSumToOne;
};

// What skipping needs to know of each token of a micro-batch.
struct TokenPolicies {
  Tensor token_class;  // [T] u8, TokenClass
  Tensor level;        // [T] u8, index in the LevelTable
};

}  // namespace skipper

// The MoE layer across ranks: route → skip → dispatch → experts → combine, and nothing else.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "cluster/operating_point.h"
#include "expert_parallel/dispatch_buffers.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/expert_skipping.h"
#include "expert_parallel/pair_counters.h"
#include "expert_parallel/router.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/skip_meter.h"
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
  RouterScoring scoring = RouterScoring::kSoftmax;
  TopKNormalization normalization = TopKNormalization::kSumToOne;
};

// What the MoE layers of a rank share. All references outlive the layers.
struct MoeContext {
  const ExpertFfn& experts;
  TokenDispatcher& dispatcher;
  SkippingContext skipping;
  TrafficCounters& counters;  // the dispatcher's
  PairCounters& pairs;
  SkipMeter* meter = nullptr;  // null: nothing is timed
};

// Sizes of a micro-batch's buffers.
struct MoeBufferConfig {
  int64_t max_tokens = 0;  // of one rank
  int64_t num_experts = 0;
  int64_t top_k = 0;
  // Expert rows computed at once; 512 tokens × top 8 are one pass. More would make the rows between the two products leave the
  // caches without any weight being read less often.
  int64_t max_rows_per_pass = 4096;
  DispatchConfig formats{};
};

// Memory of one micro-batch, shared by all MoE layers of a model; allocated once.
struct MoeBuffers {
  MoeBuffers(const MoeBufferConfig& config, const ExpertPlacement& placement, const ExpertStore& store);

  RouterBuffers router;
  SkippingBuffers skipping;
  DispatchBuffers dispatch;
  ExpertScratch experts;
  Tensor expert_output;  // [most rows that can arrive, H] f32
};

// Sees the routing of a batch before and after skipping, and what each row runs under; valid during the call only.
using RoutingObserver = std::function<void(const MoeLayerConfig& layer, const TokenPolicies& policies, const Routing& routed,
                                           const Routing& kept)>;

// Engine thread only. All ranks call forward() together, also with no tokens.
class MoeLayer {
 public:
  // router_weight [num_experts, H] as pack_router() makes it.
  MoeLayer(const MoeLayerConfig& config, const PackedMatrix& router_weight, const MoeContext& context);

  // One at a time; off by default.
  void set_routing_observer(RoutingObserver observer) { observer_ = std::move(observer); }

  // Which levels there are now.
  const LevelTable& levels() const { return context_.skipping.levels; }

  // out = Σ over the experts that run of weight · expert(hidden), exactly 0 for a token without any, plus hidden for a token
  // whose level bypasses the layer by identity.
  // hidden [T, H] f32 · out [T, H] f32, overwritten; may not overlap hidden
  void forward(const Tensor& hidden, const TokenPolicies& policies, MoeBuffers& buffers, Tensor& out,
               Stream& stream) const;

 private:
  void run_experts(const DispatchInput& input, MoeBuffers& buffers, Tensor& out, Stream& stream) const;

  MoeLayerConfig config_;
  MoeContext context_;
  Router router_;
  ExpertSkipping skipping_;
  RoutingObserver observer_;
};

}  // namespace skipper

// What a loaded model computes on one kind of device: the vision tower and the decoder.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "expert_parallel/dispatch_demand.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/moe_layer.h"
#include "expert_parallel/pair_counters.h"
#include "expert_parallel/traffic_counters.h"
#include "experts/activation_observer.h"
#include "experts/expert_ffn.h"
#include "experts/expert_store.h"
#include "model/batch_input.h"
#include "model/expert_tiers.h"
#include "model/image_patches.h"
#include "model/kv_cache.h"
#include "model/model_config.h"
#include "model/step_limits.h"
#include "model/step_output.h"

namespace skipper {

// What every backend is made of, besides the dense weights. All references outlive it.
struct ModelParts {
  const ModelConfig& config;
  const StepLimits& limits;
  const ExpertPlacement& placement;
  ExpertStore& store;  // frozen
  const ExpertTiers& tiers;  // on a GPU
  TrafficCounters& traffic;
  PairCounters& pairs;
  SkipMeter& skip_meter;  // of the CPU
  ExpertResidence* residence = nullptr;  // of the CPU: of experts on disk; null: there are none
};

// The methods mean what MultimodalModel says of those of the same name. Engine thread only.
class ModelBackend {
 public:
  virtual ~ModelBackend() = default;

  virtual ImageFeatures encode_images(std::span<const ImagePatches> images, Stream& stream) = 0;
  virtual StepOutput forward(const BatchInput& batch, KvCache& cache, Stream& stream) = 0;
  virtual Tensor token_usage() const = 0;
  virtual std::chrono::nanoseconds expert_time() const = 0;
  virtual int64_t bytes_per_sent_row() const = 0;
  // None on the host, whose ranks always send as many rows as there are.
  virtual DispatchDemand dispatch_demand() const { return {}; }
  virtual void set_step(int64_t step) = 0;
  virtual void set_routing_observer(const RoutingObserver& observer) = 0;
  virtual std::vector<int64_t> expert_loads() = 0;
  virtual void set_activation_observer(const ActivationObserver& observer) = 0;
  virtual void set_expert_output_observer(const ExpertOutputObserver& observer) = 0;
  // Weights in GPU memory, staging of experts included, and those in page-locked host memory.
  virtual size_t gpu_bytes() const = 0;
  virtual size_t pinned_bytes() const = 0;
};

}  // namespace skipper

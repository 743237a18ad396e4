// What a rank takes of its memories before it holds a single expert, from the shape of the model and the server's settings.
//
// Nothing is estimated that the server computes itself: buffers are those that a rank makes, made and counted; what remains are
// the weights' shapes, and a measured allowance for the process. tests/planning holds the sums against loaded models.
#pragma once

#include <cstdint>
#include <optional>

#include "expert_parallel/dispatch_config.h"
#include "model/kv_cache.h"
#include "model/model_config.h"
#include "model/step_limits.h"
#include "model/weight_config.h"
#include "planning/expert_plan.h"

namespace skipper {

struct RankSettings {
  WeightConfig weights = {};
  DispatchConfig dispatch = {};
  StepLimits limits = {};
  KvCacheConfig kv_cache = {};
  int world_size = 1;
  int64_t max_image_pixels = 0;          // 0: no images
  size_t reserved_device_bytes = 0;      // of a GPU: its context, libraries, graphs
  std::optional<WeightFormat> reference_experts = {};  // of a guard; absent: there is none
};

// Of the matrices that may be rounded; absent a format, as stored.
WeightFormat dense_format(const ModelConfig& model, const WeightConfig& weights);
// Everything dense, packed, without the embedding table: what load_dense_weights() and load_vision_weights() take.
size_t dense_weight_bytes(const ModelConfig& model, const WeightConfig& weights);
// Those of them that a generated token reads: not the vision tower's.
size_t decode_weight_bytes(const ModelConfig& model, const WeightConfig& weights);
// The embedding table as it is stored; a rank on the CPU reads it in the checkpoint's mapping.
size_t embedding_bytes(const ModelConfig& model);

// Of a rank that computes on the CPU. All buffers count in full, although pages that no step ever reaches cost nothing.
MemoryUse host_memory_without_experts(const ModelConfig& model, const RankSettings& settings);
// Of a rank that computes on a GPU: there, and in host memory besides.
MemoryUse device_memory_without_experts(const ModelConfig& model, const RankSettings& settings);
MemoryUse host_memory_beside_device(const ModelConfig& model, const RankSettings& settings);

}  // namespace skipper

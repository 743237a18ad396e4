// The whole model of one rank: embed, splice image features, decoder layers, norm, logits.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "cluster/cluster_topology.h"
#include "cluster/operating_point.h"
#include "comm/communicator.h"
#include "expert_parallel/traffic_counters.h"
#include "model/batch_input.h"
#include "model/image_patches.h"
#include "model/kv_cache.h"
#include "model/model_config.h"
#include "tensor/tensor.h"

namespace skipper {

// What one rank shares with the others. All references outlive the model.
struct ParallelContext {
  Communicator& data;
  const ClusterTopology& topology;
  const LevelTable& levels;
};

// Sizes of the step buffers, allocated once.
struct StepLimits {
  int64_t max_tokens = 0;      // tokens of one rank in one step
  int64_t max_logit_rows = 0;  // of them, tokens whose logits are read
};

// Engine thread only. All ranks call forward() together, also with zero tokens.
class MultimodalModel {
 public:
  // Reads the weights of this rank from the checkpoint directory: everything dense, and the experts it owns.
  // Throws InvalidFile naming file and tensor.
  MultimodalModel(const std::filesystem::path& directory, const ModelConfig& config, const ParallelContext& parallel,
                  const StepLimits& limits);
  ~MultimodalModel();

  const ModelConfig& config() const;

  // The vision tower over new images, no collective inside. Result rows in the order of the images.
  ImageFeatures encode_images(std::span<const ImagePatches> images, Stream& stream);

  // One step. Returns logits [L, vocab_size] f32 of batch.logit_rows, valid until the next call.
  Tensor forward(const BatchInput& batch, KvCache& cache, Stream& stream);

  // Sums since start of this rank.
  const TrafficCounters& traffic() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace skipper

// The weights of a decoder in GPU memory: H hidden, V vocabulary, I feed-forward width, D head width, E experts of this rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "expert_parallel/cuda/host_experts.h"
#include "experts/expert_store.h"
#include "kernels/cuda/device_matrix.h"
#include "kernels/weight_format.h"
#include "model/cuda/device_linear.h"
#include "model/expert_tiers.h"
#include "model/model_config.h"
#include "model/model_weights.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

struct DeviceLayerWeights {
  Tensor input_norm;           // [H] f32
  DeviceLinear qkv;            // [(heads + 2 · kv_heads) · D, H]: queries, keys and values one below the other
  DeviceLinear o;              // [H, heads · D]
  Tensor q_norm;               // [D] f32
  Tensor k_norm;               // [D] f32
  Tensor post_attention_norm;  // [H] f32
  Tensor router;               // [experts, H] f32, of MoE layers; undefined in dense ones
  DeviceMatrices gate_up;      // [2 · I, H] of each expert of this rank in slot order; a dense network is one expert
  DeviceMatrices down;         // [H, I] of the same
  HostExpertMatrices host_experts = {};  // those that are absent there, in memory of the store that they were loaded to

  size_t host_expert_bytes() const { return gate_up.num_host_bytes() + down.num_host_bytes(); }
};

struct DecoderWeights {
  Tensor embedding;  // [V, H] bf16 or f32
  std::vector<DeviceLayerWeights> layers;
  Tensor final_norm;    // [H] f32
  DeviceMatrices head;  // [V, H]

  // In GPU memory.
  size_t num_bytes() const;
  // Of experts in page-locked host memory: of all, and of the layer that has most there.
  size_t host_expert_bytes() const;
  size_t most_host_expert_bytes() const;
  // Whether the host computes experts of any layer.
  bool has_host_experts() const;
};

struct ExpertUpload {
  ExpertStore& experts;
  const ExpertTiers& tiers;
};
// Copies of what the loaders made, complete when it returns; `workers` share the packing. Weights in f32 become BF16, as all
// weights are multiplied. Host copies go as soon as they have been read, layer by layer, so that the host never holds more than
// the model once and a layer: `host` loses its layers and head, and the store all experts but those that the host computes.
// Throws InvalidRequest naming a format that GPUs do not multiply with, DeviceError without memory.
DecoderWeights upload_decoder_weights(const ModelConfig& config, ModelWeights& host, const ExpertUpload& experts,
                                      ThreadPool& workers, Stream& stream);

struct RandomWeightFormats {
  WeightFormat experts;
  WeightFormat dense;
};
// A decoder of any shape without a checkpoint, for benchmarks: all experts are this rank's, made in place. Weights do not depend
// on their tiers.
DecoderWeights random_decoder_weights(const ModelConfig& config, const RandomWeightFormats& formats, uint64_t seed,
                                      Stream& stream, const ExpertTiers& tiers = {});

}  // namespace skipper::cuda

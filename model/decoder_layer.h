// One decoder layer: attention and a feed-forward network, dense or of experts, each added to the residual stream.
#pragma once

#include <optional>

#include "expert_parallel/moe_layer.h"
#include "experts/activation_observer.h"
#include "model/activations.h"
#include "model/attention_layer.h"
#include "model/model_weights.h"
#include "tensor/device_runtime.h"

namespace skipper {

// What all layers of a step share.
struct StepContext {
  KvView kv;
  Activations& activations;
  MoeBuffers& moe_buffers;
  Stream& stream;
};

// A layer runs in two parts, write_kv() and then update(). In all layers but the last, update() takes the same rows; in the
// last it takes only the rows whose logits are read. Engine thread only.
class DecoderLayer {
 public:
  // `moe` is present in layers with experts, weights.dense in the others.
  DecoderLayer(const ModelConfig& config, DecoderLayerWeights weights, std::optional<MoeLayer> moe);

  // Normalises rows.hidden into rows.normed and stores K and V of these rows.
  void write_kv(DecoderRows& rows, PagedKv& cache, const StepContext& step) const;
  // hidden += attention(normed); hidden += feed_forward(norm(hidden)). All ranks call it together when the layer has experts,
  // also without rows.
  void update(DecoderRows& rows, const PagedKv& cache, const StepContext& step) const;

  bool has_experts() const { return moe_.has_value(); }
  void set_routing_observer(const RoutingObserver& observer);
  // Sees the inputs of the dense matrices, as those of decoder layer `layer`; experts are observed where they run.
  void set_activation_observer(const ActivationObserver& observer, int layer);

 private:
  void observe(MatrixInput input, const Tensor& rows, Stream& stream) const;
  void mark_important(DecoderRows& rows, const PagedKv& cache, const StepContext& step) const;
  void feed_forward(const DecoderRows& rows, Tensor& output, const StepContext& step) const;

  float norm_epsilon_;
  DecoderLayerWeights weights_;
  AttentionLayer attention_;
  std::optional<MoeLayer> moe_;
  ActivationObserver observer_;
  int observed_as_ = 0;
};

}  // namespace skipper

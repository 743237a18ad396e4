// What the routers of a GPU chose in one step, brought to the host for an observer.
#pragma once

#include <cstdint>
#include <vector>

#include "expert_parallel/cuda/device_moe_layer.h"
#include "expert_parallel/moe_layer.h"
#include "model/batch_input.h"
#include "tensor/cuda/pinned_tensor.h"

namespace skipper::cuda {

//   recorder.queue(layer.config(), RoutingRecorder::Rows::kTokens, num_rows, buffers, stream);  // after each MoE layer
//   stream.synchronize();
//   recorder.show(observer, batch, usage);
//
// Engine thread only.
class RoutingRecorder {
 public:
  // Page-locked memory for all MoE layers of the largest step.
  RoutingRecorder(int num_moe_layers, const DeviceMoeBuffers& buffers);

  // Which rows of a batch went through a layer.
  enum class Rows : uint8_t { kTokens, kLogitRows };

  // Copies what the layer has just chosen for the first `num_rows` rows, padding included, in stream order; never while a graph
  // is recorded. `buffers` keep routed weights.
  void queue(const DeviceMoeConfig& layer, Rows rows, int64_t num_rows, const DeviceMoeBuffers& buffers, Stream& stream);

  // Shows each layer queued since the last call. The copies are complete; usage [tokens of the step, kNumGpuUsageColumns] i32.
  void show(const RoutingObserver& observer, const BatchInput& batch, const Tensor& usage);
  // Of a step that runs once more.
  void forget() { queued_.clear(); }

 private:
  struct Queued {
    MoeLayerConfig layer;
    Rows rows = Rows::kTokens;
  };

  PinnedTensor routed_ids_, routed_weights_, kept_ids_, kept_weights_;  // [MoE layers, rows, k]
  std::vector<Queued> queued_;
};

}  // namespace skipper::cuda

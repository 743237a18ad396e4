#include "model/cuda/routing_recorder.h"

#include <glog/logging.h>

#include <numeric>

#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"

namespace skipper::cuda {
namespace {

void copy(const Tensor& from, Tensor to, Stream& stream) {
  copy_bytes({from.bytes(), from.device(), to.bytes(), to.device(), from.num_bytes()}, stream);
}

// source[index[i]]
template <typename T>
Tensor gathered(const Tensor& source, const Tensor& index) {
  Tensor target = Tensor::empty(index.shape(), source.dtype());
  T* out = target.data<T>();
  for (const int32_t row : index.span<int32_t>()) *out++ = source.data<T>()[row];
  return target;
}

TokenPolicies policies_of_tokens(const BatchInput& batch, const Tensor& usage) {
  Tensor step_token = Tensor::empty({batch.num_tokens()}, DType::kI32);
  std::iota(step_token.span<int32_t>().begin(), step_token.span<int32_t>().end(), 0);
  return {batch.token_class, batch.level, batch.phase, step_token, {}, usage};
}

TokenPolicies policies_of_logit_rows(const BatchInput& batch, const Tensor& usage) {
  const Tensor& rows = batch.logit_rows;
  return {gathered<uint8_t>(batch.token_class, rows), gathered<uint8_t>(batch.level, rows), gathered<uint8_t>(batch.phase, rows),
          rows, {}, usage};
}

MoeLayerConfig for_observers(const DeviceMoeConfig& layer) {
  return {.layer = layer.layer,
          .moe_layer = layer.moe_layer,
          .hidden_size = layer.hidden_size,
          .num_experts = layer.num_experts,
          .top_k = layer.top_k,
          .normalization = layer.normalization};
}

}  // namespace

RoutingRecorder::RoutingRecorder(int num_moe_layers, const DeviceMoeBuffers& buffers) {
  const Shape shape{num_moe_layers, buffers.config.max_tokens, buffers.config.top_k};
  routed_ids_ = PinnedTensor(shape, DType::kI32);
  routed_weights_ = PinnedTensor(shape, DType::kF32);
  kept_ids_ = PinnedTensor(shape, DType::kI32);
  kept_weights_ = PinnedTensor(shape, DType::kF32);
}

void RoutingRecorder::queue(const DeviceMoeConfig& layer, Rows rows, int64_t num_rows, const DeviceMoeBuffers& buffers,
                            Stream& stream) {
  CHECK(buffers.keeps_routed_weights);
  const auto take = [&](const Tensor& chosen, PinnedTensor& target) {
    copy(chosen.first(num_rows), target.tensor().at(layer.moe_layer).first(num_rows), stream);
  };
  take(buffers.routed_ids, routed_ids_);
  take(buffers.routed_weights, routed_weights_);
  take(buffers.expert_ids, kept_ids_);
  take(buffers.expert_weights, kept_weights_);
  queued_.push_back({for_observers(layer), rows});
}

void RoutingRecorder::show(const RoutingObserver& observer, const BatchInput& batch, const Tensor& usage) {
  const TokenPolicies tokens = policies_of_tokens(batch, usage), logit_rows = policies_of_logit_rows(batch, usage);
  for (const Queued& queued : queued_) {
    const TokenPolicies& policies = queued.rows == Rows::kTokens ? tokens : logit_rows;
    const auto of_layer = [&](const PinnedTensor& chosen) {
      return chosen.tensor().at(queued.layer.moe_layer).first(policies.num_tokens());
    };
    const Routing routed{of_layer(routed_ids_), of_layer(routed_weights_)}, kept{of_layer(kept_ids_), of_layer(kept_weights_)};
    observer(queued.layer, policies, routed, kept);
  }
  queued_.clear();
}

}  // namespace skipper::cuda

#include "model/decoder_layer.h"

#include <glog/logging.h>

#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/rms_norm.h"
#include "kernels/swiglu.h"

namespace skipper {

DecoderLayer::DecoderLayer(const ModelConfig& config, DecoderLayerWeights weights, std::optional<MoeLayer> moe)
    : norm_epsilon_(config.rms_norm_epsilon),
      weights_(std::move(weights)),
      attention_(config, weights_.attention),
      moe_(std::move(moe)) {
  CHECK(moe_.has_value() != weights_.dense.has_value()) << "a layer is either dense or of experts";
}

void DecoderLayer::write_kv(DecoderRows& rows, PagedKv& cache, const StepContext& step) const {
  rms_norm(rows.hidden, weights_.input_norm, norm_epsilon_, rows.normed, step.stream);
  attention_.write_kv(rows, step.kv, cache, step.activations, step.stream);
}

void DecoderLayer::update(DecoderRows& rows, const PagedKv& cache, const StepContext& step) const {
  Tensor output = step.activations.sublayer_output.first(rows.num_rows());
  attention_.attend(rows, step.kv, cache, step.activations, step.stream);
  add(output, rows.hidden, step.stream);

  rms_norm(rows.hidden, weights_.post_attention_norm, norm_epsilon_, rows.normed, step.stream);
  feed_forward(rows, output, step);
  add(output, rows.hidden, step.stream);
}

void DecoderLayer::feed_forward(const DecoderRows& rows, Tensor& output, const StepContext& step) const {
  if (moe_) return moe_->forward(rows.normed, rows.policies, step.moe_buffers, output, step.stream);
  Tensor gate_up = step.activations.gate_up.first(rows.num_rows());
  Tensor activated = step.activations.activated.first(rows.num_rows());
  gemm(rows.normed, weights_.dense->gate_up, gate_up, step.stream);
  swiglu(gate_up, activated, step.stream);
  gemm(activated, weights_.dense->down, output, step.stream);
}

void DecoderLayer::set_routing_observer(const RoutingObserver& observer) {
  if (moe_) moe_->set_routing_observer(observer);
}

}  // namespace skipper

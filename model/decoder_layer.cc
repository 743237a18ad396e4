#include "model/decoder_layer.h"

#include <glog/logging.h>

#include "expert_parallel/important_tokens.h"
#include "kernels/elementwise.h"
#include "kernels/expert_products.h"
#include "kernels/rms_norm.h"

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
  observe(MatrixInput::kAttention, rows.normed, step.stream);
  attention_.write_kv(rows, step.kv, cache, step.activations, step.stream);
}

void DecoderLayer::update(DecoderRows& rows, const PagedKv& cache, const StepContext& step) const {
  Tensor output = step.activations.sublayer_output.first(rows.num_rows());
  attention_.attend(rows, step.kv, cache, step.activations, step.stream);
  observe(MatrixInput::kAttentionOutput, step.activations.attended.first(rows.num_rows()), step.stream);
  add_rms_norm(output, {weights_.post_attention_norm, norm_epsilon_}, rows.hidden, rows.normed, step.stream);
  mark_important(rows, cache, step);
  feed_forward(rows, output, step);
  add(output, rows.hidden, step.stream);
}

// Costs a look at the levels unless one of them asks for it.
void DecoderLayer::mark_important(DecoderRows& rows, const PagedKv& cache, const StepContext& step) const {
  rows.policies.keeps_all = {};
  if (!moe_ || !any_token_is_protected_by_attention(moe_->levels(), rows.policies)) return;
  Tensor marks = step.activations.keeps_all.first(rows.num_rows());
  const auto received = [&](const RowRange& range, std::span<float> out) {
    attention_.received(rows, range, {step.kv, cache, step.activations, step.stream}, out);
  };
  mark_important_tokens({moe_->levels(), rows.policies, rows.sequence_index, rows.normed}, received, marks.span<uint8_t>());
  rows.policies.keeps_all = marks;
}

void DecoderLayer::feed_forward(const DecoderRows& rows, Tensor& output, const StepContext& step) const {
  if (moe_) return moe_->forward(rows.normed, rows.policies, step.moe_buffers, output, step.stream);
  // A dense network is one expert to which all rows go.
  const int64_t num_rows = rows.num_rows();
  const Tensor offsets = step.activations.offsets_of_one_expert(num_rows);
  Tensor activated = step.activations.activated.first(num_rows);
  observe(MatrixInput::kGateUp, rows.normed, step.stream);
  expert_gate_up({rows.normed, step.activations.row_index.first(num_rows), offsets}, {&weights_.dense->gate_up, 1}, activated,
                 step.stream);
  observe(MatrixInput::kDown, activated, step.stream);
  expert_down({activated, offsets}, {&weights_.dense->down, 1}, output, step.stream);
}

void DecoderLayer::observe(MatrixInput input, const Tensor& rows, Stream& stream) const {
  if (observer_) observer_({input, observed_as_, rows}, stream);
}

void DecoderLayer::set_activation_observer(const ActivationObserver& observer, int layer) {
  observer_ = observer;
  observed_as_ = layer;
}

void DecoderLayer::set_routing_observer(const RoutingObserver& observer) {
  if (moe_) moe_->set_routing_observer(observer);
}

}  // namespace skipper

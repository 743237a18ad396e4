#include "model/attention_layer.h"

#include <cmath>

#include "kernels/linear.h"
#include "kernels/paged_attention.h"
#include "kernels/rms_norm_rope.h"

namespace skipper {
namespace {

// heads [n, heads, D] = x · wᵀ; the product itself sees the heads side by side.
void project_to_heads(const Tensor& x, const PackedLinear& weights, const Tensor& heads, Stream& stream) {
  Tensor flat = heads.reshaped({heads.dim(0), heads.dim(1) * heads.dim(2)});
  linear(x, weights, flat, stream);
}

float score_scale(const AttentionConfig& config) { return 1.0f / std::sqrt(static_cast<float>(config.kv.key_dim)); }

}  // namespace

AttentionLayer::AttentionLayer(const ModelConfig& config, AttentionWeights weights)
    : config_(config.attention), norm_epsilon_(config.rms_norm_epsilon), weights_(std::move(weights)) {}

void AttentionLayer::write_kv(const DecoderRows& rows, const KvView& view, PagedKv& cache, Activations& activations,
                              Stream& stream) const {
  Tensor k = activations.k.first(rows.num_rows());
  const Tensor v = activations.v.first(rows.num_rows());
  project_to_heads(rows.normed, weights_.k, k, stream);
  project_to_heads(rows.normed, weights_.v, v, stream);
  rms_norm_rope(k, {weights_.k_norm, norm_epsilon_}, rows.angles, stream);
  store_kv(k, v, view.slots, cache, stream);
}

void AttentionLayer::attend(const DecoderRows& rows, const KvView& view, const PagedKv& cache,
                            Activations& activations, Stream& stream) const {
  const int64_t num_rows = rows.num_rows();
  Tensor q = activations.q.first(num_rows);
  project_to_heads(rows.normed, weights_.q, q, stream);
  rms_norm_rope(q, {weights_.q_norm, norm_epsilon_}, rows.angles, stream);

  Tensor attended = activations.attended.first(num_rows);
  paged_attention({q, rows.sequence_index, rows.positions, view.block_tables, score_scale(config_)}, cache, attended, stream);
  Tensor output = activations.sublayer_output.first(num_rows);
  linear(attended.reshaped({num_rows, config_.num_heads * config_.kv.value_dim}), weights_.o, output, stream);
}

void AttentionLayer::received(const DecoderRows& rows, const RowRange& range, const StepAttention& step,
                              std::span<float> received) const {
  const Tensor q = step.activations.q.first(rows.num_rows());
  attention_received({q, rows.sequence_index, rows.positions, step.view.block_tables, score_scale(config_)}, step.cache, range,
                     received, step.stream);
}

}  // namespace skipper

#include "model/cpu_model.h"

#include <glog/logging.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "experts/expert_ffn.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/linear.h"
#include "kernels/permute_tokens.h"
#include "kernels/rms_norm.h"
#include "model/activations.h"
#include "model/decoder_layer.h"
#include "model/rotary_embedding.h"
#include "model/vision_encoder.h"

namespace skipper {
namespace {

// out[i] = source[rows[i]], for the host tensors of a batch.
template <typename T>
void gather_elements(const Tensor& source, const Tensor& rows, Tensor& out) {
  const int32_t* index = rows.data<int32_t>();
  for (int64_t i = 0; i < rows.num_elements(); ++i) out.data<T>()[i] = source.data<T>()[index[i]];
}

void check_sizes(const BatchInput& batch, const StepLimits& limits) {
  const int64_t num_tokens = batch.num_tokens();
  CHECK_LE(num_tokens, limits.max_tokens);
  CHECK_LE(batch.logit_rows.num_elements(), limits.max_logit_rows);
  CHECK(batch.rotary_positions.shape() == Shape({num_tokens, 3})) << batch.rotary_positions.shape().to_string();
  for (const Tensor* per_token :
       {&batch.positions, &batch.sequence_index, &batch.kv_slots, &batch.token_class, &batch.level, &batch.phase}) {
    CHECK_EQ(per_token->num_elements(), num_tokens);
  }
}

MoeLayerConfig moe_layer_config(const ModelConfig& config, int layer, int moe_layer) {
  return {.layer = layer,
          .moe_layer = moe_layer,
          .hidden_size = config.hidden_size,
          .num_experts = config.moe.num_experts,
          .top_k = config.moe.top_k,
          .scoring = config.moe.scoring,
          .normalization = config.moe.normalization};
}

class CpuModel final : public ModelBackend {
 public:
  CpuModel(const ModelParts& parts, ModelWeights weights, const ParallelContext& parallel);

  ImageFeatures encode_images(std::span<const ImagePatches> images, Stream& stream) override;
  StepOutput forward(const BatchInput& batch, KvCache& cache, Stream& stream) override;
  Tensor token_usage() const override { return activations_.tokens.policies.usage; }
  std::chrono::nanoseconds expert_time() const override { return experts_.time(); }
  int64_t bytes_per_sent_row() const override {
    return moe_buffers_.dispatch.payload_row_bytes() + moe_buffers_.dispatch.combine_row_bytes();
  }
  void set_step(int64_t step) override { dispatcher_.set_step(step); }
  void set_routing_observer(const RoutingObserver& observer) override;
  std::vector<int64_t> expert_loads() override { return {}; }
  void set_activation_observer(const ActivationObserver& observer) override;
  void set_expert_output_observer(const ExpertOutputObserver& observer) override { experts_.set_output_observer(observer); }
  size_t gpu_bytes() const override { return 0; }
  size_t pinned_bytes() const override { return 0; }

 private:
  void build_layers(std::vector<DecoderLayerWeights> weights, const MoeContext& context);
  DecoderRows embed(const BatchInput& batch, Stream& stream);
  void add_deepstack(const BatchInput& batch, size_t layer, DecoderRows& rows, Stream& stream) const;
  DecoderRows select_logit_rows(const BatchInput& batch, const DecoderRows& tokens, Stream& stream);
  Tensor logits_of(DecoderRows& rows, Stream& stream);

  const ModelConfig& config_;
  const StepLimits limits_;
  ExpertFfn experts_;
  TokenDispatcher dispatcher_;
  RotaryEmbedding rotary_;
  Activations activations_;
  MoeBuffers moe_buffers_;
  std::vector<DecoderLayer> layers_;
  Tensor embedding_table_;
  Tensor final_norm_;
  PackedLinear head_;
  std::optional<VisionEncoder> vision_;
  ActivationObserver observer_;
};

CpuModel::CpuModel(const ModelParts& parts, ModelWeights weights, const ParallelContext& parallel)
    : config_(parts.config),
      limits_(parts.limits),
      experts_(parts.store),
      dispatcher_({parallel.data, parallel.topology, parts.placement, parts.traffic}),
      rotary_(config_.rotary),
      activations_(config_, limits_),
      moe_buffers_(moe_buffer_config(config_, limits_, parallel.formats), parts.placement, parts.store),
      embedding_table_(weights.embedding),
      final_norm_(weights.final_norm),
      head_(weights.head) {
  experts_.set_residence(parts.residence);
  const SkippingContext skipping{parallel.levels, parts.placement, parallel.topology, parallel.data};
  build_layers(std::move(weights.layers), {experts_, dispatcher_, skipping, parts.traffic, parts.pairs, &parts.skip_meter});
  if (weights.vision) vision_.emplace(*config_.vision, std::move(*weights.vision));
}

void CpuModel::build_layers(std::vector<DecoderLayerWeights> weights, const MoeContext& context) {
  int moe_layer = 0;
  for (int64_t layer = 0; layer < config_.num_layers(); ++layer) {
    DecoderLayerWeights& layer_weights = weights[static_cast<size_t>(layer)];
    std::optional<MoeLayer> moe;
    if (config_.is_moe_layer(layer)) {
      moe.emplace(moe_layer_config(config_, static_cast<int>(layer), moe_layer++), layer_weights.router, context);
    }
    layers_.emplace_back(config_, std::move(layer_weights), std::move(moe));
  }
}

ImageFeatures CpuModel::encode_images(std::span<const ImagePatches> images, Stream& stream) {
  if (!vision_) throw InvalidRequest("this model reads no images; remove them or serve a vision model", "messages");
  return vision_->encode(images, stream);
}

StepOutput CpuModel::forward(const BatchInput& batch, KvCache& cache, Stream& stream) {
  check_sizes(batch, limits_);
  const StepContext step{{batch.kv_slots, batch.block_tables}, activations_, moe_buffers_, stream};
  const size_t last = layers_.size() - 1;

  DecoderRows tokens = embed(batch, stream);
  for (size_t layer = 0; layer < last; ++layer) {
    PagedKv& kv = cache.layer(static_cast<int64_t>(layer));
    layers_[layer].write_kv(tokens, kv, step);
    layers_[layer].update(tokens, kv, step);
    add_deepstack(batch, layer, tokens, stream);
  }
  // Later tokens read every token's K and V of the last layer, but its output only matters where logits are read.
  PagedKv& kv = cache.layer(static_cast<int64_t>(last));
  layers_[last].write_kv(tokens, kv, step);
  DecoderRows wanted = select_logit_rows(batch, tokens, stream);
  layers_[last].update(wanted, kv, step);
  return {.logits = logits_of(wanted, stream), .tokens = {}};
}

// Token embeddings, with image features in the placeholders' stead, and what the layers need to know of each token.
DecoderRows CpuModel::embed(const BatchInput& batch, Stream& stream) {
  DecoderRows rows = activations_.tokens.first(batch.num_tokens());
  rows.positions = batch.positions;
  rows.sequence_index = batch.sequence_index;
  rows.policies.token_class = batch.token_class;
  rows.policies.level = batch.level;
  rows.policies.phase = batch.phase;
  rows.policies.usage = activations_.tokens.policies.usage.first(batch.num_tokens());
  std::fill_n(rows.policies.usage.data<int32_t>(), rows.policies.usage.num_elements(), 0);
  rotary_.angles(batch.rotary_positions, rows.angles);
  embedding(batch.token_ids, embedding_table_, rows.hidden, stream);
  for (const VisionSpan& span : batch.vision_spans) {
    const Tensor features = span.features->embeddings.slice(span.first_feature, span.first_feature + span.num_tokens);
    Tensor placeholders = rows.hidden.slice(span.first_token, span.first_token + span.num_tokens);
    copy_bytes({features.bytes(), features.device(), placeholders.bytes(), placeholders.device(), features.num_bytes()},
               stream);
  }
  return rows;
}

// DeepStack (Meng et al. 2024): features of early vision blocks join the residual stream after the first layers.
void CpuModel::add_deepstack(const BatchInput& batch, size_t layer, DecoderRows& rows, Stream& stream) const {
  for (const VisionSpan& span : batch.vision_spans) {
    if (layer >= span.features->deepstack.size()) continue;
    const Tensor& level = span.features->deepstack[layer];
    Tensor placeholders = rows.hidden.slice(span.first_token, span.first_token + span.num_tokens);
    add(level.slice(span.first_feature, span.first_feature + span.num_tokens), placeholders, stream);
  }
}

DecoderRows CpuModel::select_logit_rows(const BatchInput& batch, const DecoderRows& tokens, Stream& stream) {
  const Tensor& index = batch.logit_rows;
  DecoderRows rows = activations_.logit_rows.first(index.num_elements());
  gather_rows(tokens.hidden, index, rows.hidden, stream);
  gather_rows(tokens.normed, index, rows.normed, stream);
  gather_rows(tokens.angles, index, rows.angles, stream);
  gather_elements<int32_t>(tokens.positions, index, rows.positions);
  gather_elements<int32_t>(tokens.sequence_index, index, rows.sequence_index);
  gather_elements<uint8_t>(tokens.policies.token_class, index, rows.policies.token_class);
  gather_elements<uint8_t>(tokens.policies.level, index, rows.policies.level);
  gather_elements<uint8_t>(tokens.policies.phase, index, rows.policies.phase);
  gather_elements<int32_t>(tokens.policies.step_token, index, rows.policies.step_token);
  rows.policies.usage = tokens.policies.usage;
  return rows;
}

Tensor CpuModel::logits_of(DecoderRows& rows, Stream& stream) {
  rms_norm(rows.hidden, final_norm_, config_.rms_norm_epsilon, rows.normed, stream);
  if (observer_) observer_({MatrixInput::kHead, 0, rows.normed}, stream);
  Tensor logits = activations_.logits.first(rows.num_rows());
  linear(rows.normed, head_, logits, stream);
  return logits;
}

void CpuModel::set_routing_observer(const RoutingObserver& observer) {
  for (DecoderLayer& layer : layers_) layer.set_routing_observer(observer);
}

void CpuModel::set_activation_observer(const ActivationObserver& observer) {
  observer_ = observer;
  experts_.set_activation_observer(observer);
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    layers_[layer].set_activation_observer(observer, static_cast<int>(layer));
  }
}

}  // namespace

std::unique_ptr<ModelBackend> make_cpu_model(const ModelParts& parts, ModelWeights weights, const ParallelContext& parallel) {
  return std::make_unique<CpuModel>(parts, std::move(weights), parallel);
}

}  // namespace skipper

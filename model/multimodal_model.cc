#include "model/multimodal_model.h"

#include <glog/logging.h>

#include <algorithm>

#include "base/error.h"
#include "experts/expert_ffn.h"
#include "experts/expert_store.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/linear.h"
#include "kernels/permute_tokens.h"
#include "kernels/rms_norm.h"
#include "model/activations.h"
#include "model/decoder_layer.h"
#include "model/rotary_embedding.h"
#include "model/vision_encoder.h"
#include "model/weight_loader.h"
#include "tensor/safetensors.h"

namespace skipper {
namespace {

ExpertPlacement place_experts(const ModelConfig& config, int world_size) {
  return ExpertPlacement::contiguous({.num_moe_layers = config.num_moe_layers(),
                                      .num_experts = static_cast<int>(config.moe.num_experts),
                                      .world_size = world_size});
}

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

}  // namespace

struct MultimodalModel::State {
  State(const std::filesystem::path& directory, const ModelConfig& model_config, const ParallelContext& parallel,
        const StepLimits& step_limits, const WeightLoading& loading)
      : config(model_config),
        limits(step_limits),
        checkpoint(directory),
        placement(place_experts(config, parallel.data.size())),
        store(expert_store_config({checkpoint, config, loading.formats}, placement, parallel.data.rank())),
        experts(store),
        pairs(config.num_moe_layers()),
        dispatcher({parallel.data, parallel.topology, placement, traffic}),
        rotary(config.rotary),
        activations(config, limits),
        moe_buffers({.max_tokens = limits.max_tokens,
                     .num_experts = config.moe.num_experts,
                     .top_k = config.moe.top_k,
                     .formats = parallel.formats},
                    placement, store) {
    build(load(loading), {parallel.levels, placement, parallel.topology, parallel.data});
  }

  ModelWeights load(const WeightLoading& loading) {
    const WeightSource source{checkpoint, config, loading.formats};
    check_formats(config, loading.formats);
    LoadQueue queue;
    DenseWeights dense = load_dense_weights(source, queue);
    load_experts(source, store, queue);
    queue.run(loading.workers, loading.progress);
    store.freeze();
    mapped_bytes = settle_mapping(source, dense.weights.embedding) + dense.mapped_bytes + store.mapped_bytes();
    dense_bytes = dense.packed_bytes;
    return std::move(dense.weights);
  }

  void build(ModelWeights weights, const SkippingContext& skipping) {
    const MoeContext context{experts, dispatcher, skipping, traffic, pairs};
    int moe_layer = 0;
    for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
      DecoderLayerWeights& layer_weights = weights.layers[static_cast<size_t>(layer)];
      std::optional<MoeLayer> moe;
      if (config.is_moe_layer(layer)) {
        moe.emplace(moe_layer_config(static_cast<int>(layer), moe_layer++), layer_weights.router, context);
      }
      layers.emplace_back(config, std::move(layer_weights), std::move(moe));
    }
    embedding_table = weights.embedding;
    final_norm = weights.final_norm;
    head = weights.head;
    if (weights.vision) vision.emplace(*config.vision, std::move(*weights.vision));
  }

  MoeLayerConfig moe_layer_config(int layer, int moe_layer) const {
    return {.layer = layer,
            .moe_layer = moe_layer,
            .hidden_size = config.hidden_size,
            .num_experts = config.moe.num_experts,
            .top_k = config.moe.top_k,
            .scoring = config.moe.scoring,
            .normalization = config.moe.normalization};
  }

  DecoderRows embed(const BatchInput& batch, Stream& stream);
  void add_deepstack(const BatchInput& batch, size_t layer, DecoderRows& rows, Stream& stream) const;
  DecoderRows select_logit_rows(const BatchInput& batch, const DecoderRows& tokens, Stream& stream);
  Tensor logits_of(DecoderRows& rows, Stream& stream);

  ModelConfig config;
  StepLimits limits;
  Checkpoint checkpoint;
  ExpertPlacement placement;
  ExpertStore store;
  ExpertFfn experts;
  TrafficCounters traffic;
  PairCounters pairs;
  TokenDispatcher dispatcher;
  RotaryEmbedding rotary;
  Activations activations;
  MoeBuffers moe_buffers;
  size_t mapped_bytes = 0;
  size_t dense_bytes = 0;

  Tensor embedding_table;
  std::vector<DecoderLayer> layers;
  Tensor final_norm;
  PackedLinear head;
  std::optional<VisionEncoder> vision;
  ActivationObserver observer;
};

// Token embeddings, with image features in the placeholders' stead, and what the layers need to know of each token.
DecoderRows MultimodalModel::State::embed(const BatchInput& batch, Stream& stream) {
  DecoderRows rows = activations.tokens.first(batch.num_tokens());
  rows.positions = batch.positions;
  rows.sequence_index = batch.sequence_index;
  rows.policies.token_class = batch.token_class;
  rows.policies.level = batch.level;
  rows.policies.phase = batch.phase;
  rows.policies.usage = activations.tokens.policies.usage.first(batch.num_tokens());
  std::fill_n(rows.policies.usage.data<int32_t>(), rows.policies.usage.num_elements(), 0);
  rotary.angles(batch.rotary_positions, rows.angles);
  embedding(batch.token_ids, embedding_table, rows.hidden, stream);
  for (const VisionSpan& span : batch.vision_spans) {
    const Tensor features = span.features->embeddings.slice(span.first_feature, span.first_feature + span.num_tokens);
    Tensor placeholders = rows.hidden.slice(span.first_token, span.first_token + span.num_tokens);
    copy_bytes({features.bytes(), features.device(), placeholders.bytes(), placeholders.device(), features.num_bytes()},
               stream);
  }
  return rows;
}

// DeepStack (Meng et al. 2024): features of early vision blocks join the residual stream after the first layers.
void MultimodalModel::State::add_deepstack(const BatchInput& batch, size_t layer, DecoderRows& rows,
                                           Stream& stream) const {
  for (const VisionSpan& span : batch.vision_spans) {
    if (layer >= span.features->deepstack.size()) continue;
    const Tensor& level = span.features->deepstack[layer];
    Tensor placeholders = rows.hidden.slice(span.first_token, span.first_token + span.num_tokens);
    add(level.slice(span.first_feature, span.first_feature + span.num_tokens), placeholders, stream);
  }
}

DecoderRows MultimodalModel::State::select_logit_rows(const BatchInput& batch, const DecoderRows& tokens,
                                                      Stream& stream) {
  const Tensor& index = batch.logit_rows;
  DecoderRows rows = activations.logit_rows.first(index.num_elements());
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

Tensor MultimodalModel::State::logits_of(DecoderRows& rows, Stream& stream) {
  rms_norm(rows.hidden, final_norm, config.rms_norm_epsilon, rows.normed, stream);
  if (observer) observer({MatrixInput::kHead, 0, rows.normed}, stream);
  Tensor logits = activations.logits.first(rows.num_rows());
  linear(rows.normed, head, logits, stream);
  return logits;
}

MultimodalModel::MultimodalModel(const std::filesystem::path& directory, const ModelConfig& config,
                                 const ParallelContext& parallel, const StepLimits& limits, const WeightLoading& loading)
    : state_(std::make_unique<State>(directory, config, parallel, limits, loading)) {}

MultimodalModel::~MultimodalModel() = default;

const ModelConfig& MultimodalModel::config() const { return state_->config; }

ImageFeatures MultimodalModel::encode_images(std::span<const ImagePatches> images, Stream& stream) {
  if (!state_->vision) {
    throw InvalidRequest("this model reads no images; remove them or serve a vision model", "messages");
  }
  return state_->vision->encode(images, stream);
}

Tensor MultimodalModel::forward(const BatchInput& batch, KvCache& cache, Stream& stream) {
  check_sizes(batch, state_->limits);
  const StepContext step{{batch.kv_slots, batch.block_tables}, state_->activations, state_->moe_buffers, stream};
  const size_t last = state_->layers.size() - 1;

  DecoderRows tokens = state_->embed(batch, stream);
  for (size_t layer = 0; layer < last; ++layer) {
    PagedKv& kv = cache.layer(static_cast<int64_t>(layer));
    state_->layers[layer].write_kv(tokens, kv, step);
    state_->layers[layer].update(tokens, kv, step);
    state_->add_deepstack(batch, layer, tokens, stream);
  }
  // Later tokens read every token's K and V of the last layer, but its output only matters where logits are read.
  PagedKv& kv = cache.layer(static_cast<int64_t>(last));
  state_->layers[last].write_kv(tokens, kv, step);
  DecoderRows wanted = state_->select_logit_rows(batch, tokens, stream);
  state_->layers[last].update(wanted, kv, step);
  return state_->logits_of(wanted, stream);
}

Tensor MultimodalModel::token_usage() const { return state_->activations.tokens.policies.usage; }

std::chrono::nanoseconds MultimodalModel::expert_time() const { return state_->experts.time(); }

int64_t MultimodalModel::bytes_per_sent_row() const {
  return state_->moe_buffers.dispatch.payload_row_bytes() + state_->moe_buffers.dispatch.combine_row_bytes();
}

void MultimodalModel::set_step(int64_t step) { state_->dispatcher.set_step(step); }

void MultimodalModel::set_routing_observer(const RoutingObserver& observer) {
  for (DecoderLayer& layer : state_->layers) layer.set_routing_observer(observer);
}

void MultimodalModel::set_activation_observer(const ActivationObserver& observer) {
  state_->observer = observer;
  state_->experts.set_activation_observer(observer);
  for (size_t layer = 0; layer < state_->layers.size(); ++layer) {
    state_->layers[layer].set_activation_observer(observer, static_cast<int>(layer));
  }
}

const ExpertPlacement& MultimodalModel::placement() const { return state_->placement; }

const TrafficCounters& MultimodalModel::traffic() const { return state_->traffic; }

const PairCounters& MultimodalModel::pairs() const { return state_->pairs; }

double MultimodalModel::expert_bits_per_weight() const {
  double bits = 0.0;
  int64_t num_experts = 0;
  for (int layer = 0; layer < state_->store.num_layers(); ++layer) {
    for (const ExpertSlot& slot : state_->store.slots(layer)) {
      bits += slot.format.bits_per_weight();
      ++num_experts;
    }
  }
  return num_experts == 0 ? 0.0 : bits / static_cast<double>(num_experts);
}

WeightMemory MultimodalModel::weight_memory() const {
  return {state_->mapped_bytes, state_->dense_bytes, state_->store.num_bytes(), state_->checkpoint.resident_bytes()};
}

}  // namespace skipper

#include "model/weight_loader.h"

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "experts/gate_up_panels.h"
#include "model/checkpoint_reader.h"
#include "model/quantized_checkpoint.h"
#include "model/vision_loader.h"

namespace skipper {
namespace {

// Reads what is neither expert nor vision tower: from the original's tensors, or packed ones of a quantised checkpoint.
struct DenseReader {
  CheckpointReader& reader;
  const ModelConfig& config;
  const PackingFormat& packing;  // of tensors that are not quantised

  // Of the checkpoint's dense matrices; null when they are not quantised.
  const WeightFormat* quantized_format() const {
    return config.quantization && config.quantization->dense ? &*config.quantization->dense : nullptr;
  }
  PackedMatrix matrix(const std::string& name, const Shape& shape);
  PackedLinear linear(const std::string& name, const Shape& shape, Bias bias);
  AttentionWeights attention(const std::string& prefix);
  PackedMatrix gate_up(const std::string& prefix, const PackedShape& half);
  DenseFeedForwardWeights feed_forward(const std::string& prefix);
  DecoderLayerWeights layer(int64_t index);
  PackedMatrix head(const Tensor& embedding);
};

PackedMatrix DenseReader::matrix(const std::string& name, const Shape& shape) {
  if (const WeightFormat* format = quantized_format()) {
    return reader.packed(name, {shape[0], shape[1]}, {*format, packing.bf16_activations, packing.residence});
  }
  return reader.pack_later(name + ".weight", reader.view(name + ".weight", shape), packing);
}

PackedLinear DenseReader::linear(const std::string& name, const Shape& shape, Bias bias) {
  PackedLinear weights{matrix(name, shape), {}};
  if (bias == Bias::kPresent) weights.bias = reader.copy(name + ".bias", {shape[0]});
  return weights;
}

AttentionWeights DenseReader::attention(const std::string& prefix) {
  const AttentionConfig& attention = config.attention;
  const int64_t query_size = attention.num_heads * attention.kv.key_dim;
  const int64_t key_size = attention.kv.kv_heads * attention.kv.key_dim;
  const int64_t value_size = attention.kv.kv_heads * attention.kv.value_dim;
  const Bias bias = attention.has_bias ? Bias::kPresent : Bias::kNone;
  AttentionWeights weights;
  weights.q = linear(prefix + "q_proj", {query_size, config.hidden_size}, bias);
  weights.k = linear(prefix + "k_proj", {key_size, config.hidden_size}, bias);
  weights.v = linear(prefix + "v_proj", {value_size, config.hidden_size}, bias);
  weights.o = linear(prefix + "o_proj", {config.hidden_size, query_size}, bias);
  weights.q_norm = reader.copy(prefix + "q_norm.weight", {attention.kv.key_dim});
  weights.k_norm = reader.copy(prefix + "k_norm.weight", {attention.kv.key_dim});
  return weights;
}

// Gate and up with their panels in turn, so that one pass computes both and the activation between them.
PackedMatrix DenseReader::gate_up(const std::string& prefix, const PackedShape& half) {
  if (const WeightFormat* format = quantized_format()) {
    const PackedMatrix gate = read_packed(reader.checkpoint(), prefix + "gate_proj", *format, half);
    const PackedMatrix up = read_packed(reader.checkpoint(), prefix + "up_proj", *format, half);
    PackedMatrix joined = reader.make_packed(DType::kBF16, joined_shape(half), {*format, packing.bf16_activations});
    reader.queue().add(joined.num_bytes(), [gate, up, joined]() mutable { join_panels(gate, up, joined); });
    return joined;
  }
  const std::string name = prefix + "gate_proj.weight";
  const Tensor gate = reader.view(name, {half.num_rows, half.num_columns});
  const Tensor up = reader.view(prefix + "up_proj.weight", {half.num_rows, half.num_columns});
  const bool both_bf16 = gate.dtype() == DType::kBF16 && up.dtype() == DType::kBF16;
  PackedMatrix joined = reader.make_packed(both_bf16 ? DType::kBF16 : DType::kF32, joined_shape(half), packing);
  reader.queue().add(gate.num_bytes() + up.num_bytes(), [name, gate, up, joined]() mutable {
    pack_gate_up(packable(name, gate, joined.format), packable(name + " or its up_proj", up, joined.format), joined);
  });
  return joined;
}

DenseFeedForwardWeights DenseReader::feed_forward(const std::string& prefix) {
  return {.gate_up = gate_up(prefix, {config.dense_intermediate_size, config.hidden_size}),
          .down = matrix(prefix + "down_proj", {config.hidden_size, config.dense_intermediate_size})};
}

DecoderLayerWeights DenseReader::layer(int64_t index) {
  const std::string prefix = config.text_prefix + "layers." + std::to_string(index) + ".";
  DecoderLayerWeights weights;
  weights.input_norm = reader.copy(prefix + "input_layernorm.weight", {config.hidden_size});
  weights.attention = attention(prefix + "self_attn.");
  weights.post_attention_norm = reader.copy(prefix + "post_attention_layernorm.weight", {config.hidden_size});
  if (config.is_moe_layer(index)) {
    weights.router = pack_router(reader.copy(prefix + "mlp.gate.weight", {config.moe.num_experts, config.hidden_size}));
  } else {
    weights.dense = feed_forward(prefix + "mlp.");
  }
  return weights;
}

// Also of a tied head: the table is looked up row by row, the head read panel by panel.
PackedMatrix DenseReader::head(const Tensor& embedding) {
  if (!config.tie_word_embeddings || quantized_format() != nullptr) {
    return matrix("lm_head", {config.vocab_size, config.hidden_size});
  }
  return reader.pack_later(config.text_prefix + "embed_tokens.weight", embedding, packing);
}

ActivationFormat bf16_activations(const WeightConfig& formats) {
  return formats.activation_dtype == DType::kF32 ? ActivationFormat::kF32 : ActivationFormat::kBF16;
}

bool is_mapped(const WeightConfig& formats) { return formats.residence == WeightResidence::kMapped; }

ExpertTier tier_of(const WeightConfig& formats) { return is_mapped(formats) ? ExpertTier::kMapped : ExpertTier::kHost; }

// Decoder layers with experts, ascending.
std::vector<int64_t> moe_layers_of(const ModelConfig& config) {
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
    if (config.is_moe_layer(layer)) layers.push_back(layer);
  }
  return layers;
}

ExpertStoreConfig store_without_slots(const WeightSource& source) {
  return {.hidden_size = source.config.hidden_size,
          .intermediate_size = source.config.moe.intermediate_size,
          .slots = {},
          .bf16_activations = bf16_activations(source.formats)};
}

void refuse(const std::string& what, const WeightFormat& stored, const WeightFormat& asked) {
  throw InvalidRequest("weights." + what + ": " + name_of(asked) + " cannot be made of a checkpoint that is quantised to " +
                           name_of(stored) + " already; leave the setting out, or give the original checkpoint",
                       "weights." + what);
}

}  // namespace

void check_formats(const ModelConfig& config, const WeightConfig& formats) {
  if (!config.quantization && is_mapped(formats)) {
    throw InvalidRequest("weights.residence: 'mapped' needs a checkpoint whose bytes are those of the memory; make one by "
                         "`skipper quantize`, or leave the setting out",
                         "weights.residence");
  }
  if (!config.quantization) return;
  const QuantizedFormats& stored = *config.quantization;
  if (formats.dense && stored.dense && *stored.dense != *formats.dense) refuse("dense", *stored.dense, *formats.dense);
  if (!formats.experts) return;
  if (stored.experts != *formats.experts) refuse("experts", stored.experts, *formats.experts);
  for (const auto& [id, format] : stored.expert_formats) {
    if (format != *formats.experts) refuse("experts", format, *formats.experts);
  }
}

void check_formats(const ModelConfig& config, const ExpertAssignment& assignment, int rank) {
  if (!config.quantization) return;
  const std::vector<int64_t> layers = moe_layers_of(config);
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const std::vector<int32_t>& experts = assignment.placement.experts_of(rank, static_cast<int>(layer));
    for (size_t slot = 0; slot < experts.size(); ++slot) {
      const WeightFormat& stored = config.quantization->of_expert(layers[layer], experts[slot]);
      const WeightFormat& asked = assignment.at(static_cast<int>(layer), slot).format;
      if (stored == asked) continue;
      throw InvalidRequest("the plan wants expert " + std::to_string(experts[slot]) + " of MoE layer " + std::to_string(layer) +
                               " in " + name_of(asked) + ", but the checkpoint holds it quantised to " + name_of(stored) +
                               "; make a plan for this checkpoint, or give the original",
                           "plan");
    }
  }
}

DenseWeights load_dense_weights(const WeightSource& source, LoadQueue& queue) {
  const ModelConfig& config = source.config;
  CheckpointReader reader(source.checkpoint, queue);
  const PackingFormat packing{source.formats.dense, bf16_activations(source.formats), source.formats.residence};
  DenseReader dense{reader, config, packing};
  ModelWeights weights;
  const Tensor embedding = reader.view(config.text_prefix + "embed_tokens.weight", {config.vocab_size, config.hidden_size});
  weights.embedding = embedding.dtype() == DType::kF16 ? as_f32(embedding) : embedding;
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) weights.layers.push_back(dense.layer(layer));
  weights.final_norm = reader.copy(config.text_prefix + "norm.weight", {config.hidden_size});
  weights.head.weight = dense.head(embedding);
  if (config.vision) weights.vision = load_vision_weights(config, {{}, packing.bf16_activations}, reader);
  return {std::move(weights), reader.packed_bytes(), reader.mapped_bytes()};
}

ExpertStoreConfig expert_store_config(const WeightSource& source, const ExpertPlacement& placement, int rank) {
  const ModelConfig& config = source.config;
  const WeightFormat asked = source.formats.experts.value_or(WeightFormat{});
  ExpertStoreConfig store = store_without_slots(source);
  for (const int64_t layer : moe_layers_of(config)) {
    std::vector<ExpertSlot>& slots = store.slots.emplace_back();
    for (const int32_t expert : placement.experts_of(rank, static_cast<int>(store.slots.size()) - 1)) {
      const WeightFormat format = config.quantization ? config.quantization->of_expert(layer, expert) : asked;
      slots.push_back({expert, format, tier_of(source.formats)});
    }
  }
  return store;
}

ExpertStoreConfig expert_store_config(const WeightSource& source, const ExpertAssignment& assignment, int rank) {
  ExpertStoreConfig store = store_without_slots(source);
  store.memory = assignment.memory;
  for (int layer = 0; layer < source.config.num_moe_layers(); ++layer) {
    std::vector<ExpertSlot>& slots = store.slots.emplace_back();
    for (const int32_t expert : assignment.placement.experts_of(rank, layer)) {
      const AssignedExpert& assigned = assignment.at(layer, slots.size());
      slots.push_back({expert, assigned.format, assigned.rest == ExpertTier::kDisk ? assigned.rest : tier_of(source.formats)});
    }
  }
  return store;
}

ExpertStore load_expert_store(const WeightSource& source, std::vector<std::vector<ExpertSlot>> slots, ThreadPool& workers,
                              ExpertMemory memory) {
  ExpertStoreConfig config = store_without_slots(source);
  config.memory = memory;
  config.slots = std::move(slots);
  ExpertStore store(config);
  LoadQueue queue;
  load_experts(source, store, queue);
  queue.run(workers, nullptr);
  store.freeze();
  return store;
}

ExpertStore load_expert_layer(const WeightSource& source, int moe_layer, std::span<const ExpertSlot> slots, ThreadPool& workers) {
  std::vector<std::vector<ExpertSlot>> layers(static_cast<size_t>(source.config.num_moe_layers()));
  layers[static_cast<size_t>(moe_layer)].assign(slots.begin(), slots.end());
  return load_expert_store(source, std::move(layers), workers);
}

size_t settle_mapping(const WeightSource& source, const Tensor& embedding) {
  // Where matrices are used in place, next to nothing else has been read.
  if (!is_mapped(source.formats)) source.checkpoint.release_all_pages();
  if (!source.checkpoint.holds(embedding)) return 0;
  source.checkpoint.read_in(embedding);
  return embedding.num_bytes();
}

}  // namespace skipper

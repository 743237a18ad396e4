#include "model/weight_loader.h"

#include <cstring>

#include "kernels/elementwise.h"
#include "model/checkpoint_reader.h"

namespace skipper {
namespace {

constexpr float kVisionNormEpsilon = 1e-6f;

std::string layer_prefix(const ModelConfig& config, int64_t layer) {
  return config.text_prefix + "layers." + std::to_string(layer) + ".";
}

// Copies into memory of the same shape in another's arena.
void copy_into(const Tensor& source, Tensor destination) {
  std::memcpy(destination.bytes(), source.bytes(), source.num_bytes());
}

AttentionWeights read_attention(CheckpointReader& reader, const ModelConfig& config, const std::string& prefix) {
  const AttentionConfig& attention = config.attention;
  const int64_t query_size = attention.num_heads * attention.kv.key_dim;
  const int64_t key_size = attention.kv.kv_heads * attention.kv.key_dim;
  const int64_t value_size = attention.kv.kv_heads * attention.kv.value_dim;
  const Bias bias = attention.has_bias ? Bias::kPresent : Bias::kNone;
  AttentionWeights weights;
  weights.q = reader.linear(prefix + "q_proj", {query_size, config.hidden_size}, bias);
  weights.k = reader.linear(prefix + "k_proj", {key_size, config.hidden_size}, bias);
  weights.v = reader.linear(prefix + "v_proj", {value_size, config.hidden_size}, bias);
  weights.o = reader.linear(prefix + "o_proj", {config.hidden_size, query_size}, bias);
  weights.q_norm = reader.tensor(prefix + "q_norm.weight", {attention.kv.key_dim});
  weights.k_norm = reader.tensor(prefix + "k_norm.weight", {attention.kv.key_dim});
  return weights;
}

// Gate over up, so that one product computes both.
Tensor join_gate_up(CheckpointReader& reader, const std::string& prefix, const Shape& half) {
  const Tensor gate = reader.transient(prefix + "gate_proj.weight", half);
  const Tensor up = reader.transient(prefix + "up_proj.weight", half);
  const bool both_bf16 = gate.dtype() == DType::kBF16 && up.dtype() == DType::kBF16;
  Tensor joined = Tensor::empty(half.with_first(2 * half[0]), both_bf16 ? DType::kBF16 : DType::kF32);
  copy_into(both_bf16 ? gate : as_f32(gate), joined.slice(0, half[0]));
  copy_into(both_bf16 ? up : as_f32(up), joined.slice(half[0], 2 * half[0]));
  reader.checkpoint().release_pages(gate);
  reader.checkpoint().release_pages(up);
  return joined;
}

DenseFeedForwardWeights read_dense(CheckpointReader& reader, const ModelConfig& config, const std::string& prefix) {
  DenseFeedForwardWeights weights;
  weights.gate_up.weight = join_gate_up(reader, prefix, {config.dense_intermediate_size, config.hidden_size});
  weights.down = reader.linear(prefix + "down_proj", {config.hidden_size, config.dense_intermediate_size}, Bias::kNone);
  return weights;
}

DecoderLayerWeights read_layer(CheckpointReader& reader, const ModelConfig& config, int64_t layer) {
  const std::string prefix = layer_prefix(config, layer);
  DecoderLayerWeights weights;
  weights.input_norm = reader.tensor(prefix + "input_layernorm.weight", {config.hidden_size});
  weights.attention = read_attention(reader, config, prefix + "self_attn.");
  weights.post_attention_norm = reader.tensor(prefix + "post_attention_layernorm.weight", {config.hidden_size});
  if (config.is_moe_layer(layer)) {
    weights.router = reader.tensor(prefix + "mlp.gate.weight", {config.moe.num_experts, config.hidden_size});
  } else {
    weights.dense = read_dense(reader, config, prefix + "mlp.");
  }
  return weights;
}

LayerNormWeights read_vision_norm(CheckpointReader& reader, const std::string& name, int64_t size) {
  LayerNormWeights weights = reader.layer_norm(name, size);
  weights.epsilon = kVisionNormEpsilon;
  return weights;
}

LinearWeights third_of(const LinearWeights& qkv, int64_t part) {
  const int64_t size = qkv.weight.dim(0) / 3;
  return {qkv.weight.slice(part * size, (part + 1) * size), qkv.bias.slice(part * size, (part + 1) * size)};
}

VisionBlockWeights read_vision_block(CheckpointReader& reader, const VisionConfig& vision, const std::string& prefix) {
  const int64_t size = vision.hidden_size;
  VisionBlockWeights weights;
  weights.attention_norm = read_vision_norm(reader, prefix + "norm1", size);
  const LinearWeights qkv = reader.linear(prefix + "attn.qkv", {3 * size, size}, Bias::kPresent);
  weights.q = third_of(qkv, 0);
  weights.k = third_of(qkv, 1);
  weights.v = third_of(qkv, 2);
  weights.projection = reader.linear(prefix + "attn.proj", {size, size}, Bias::kPresent);
  weights.mlp_norm = read_vision_norm(reader, prefix + "norm2", size);
  weights.fc1 = reader.linear(prefix + "mlp.linear_fc1", {vision.intermediate_size, size}, Bias::kPresent);
  weights.fc2 = reader.linear(prefix + "mlp.linear_fc2", {size, vision.intermediate_size}, Bias::kPresent);
  return weights;
}

PatchMergerWeights read_merger(CheckpointReader& reader, const VisionConfig& vision, const std::string& prefix,
                               int64_t norm_size) {
  const int64_t merged = vision.merged_size();
  return {read_vision_norm(reader, prefix + "norm", norm_size),
          reader.linear(prefix + "linear_fc1", {merged, merged}, Bias::kPresent),
          reader.linear(prefix + "linear_fc2", {vision.out_hidden_size, merged}, Bias::kPresent)};
}

// The patch convolution has a stride of its own size, so it is a matrix product over flattened patches.
LinearWeights read_patch_embedding(CheckpointReader& reader, const VisionConfig& vision, const std::string& name) {
  const Shape kernel{vision.hidden_size, vision.in_channels, vision.temporal_patch_size, vision.patch_size,
                     vision.patch_size};
  LinearWeights weights = reader.linear(name, kernel, Bias::kPresent);
  weights.weight = weights.weight.reshaped({vision.hidden_size, vision.patch_elements()});
  return weights;
}

VisionWeights read_vision(CheckpointReader& reader, const ModelConfig& config) {
  const VisionConfig& vision = *config.vision;
  const std::string& prefix = config.vision_prefix;
  VisionWeights weights;
  weights.patch_embedding = read_patch_embedding(reader, vision, prefix + "patch_embed.proj");
  const Shape table{vision.position_grid * vision.position_grid, vision.hidden_size};
  weights.position_table = as_f32(reader.tensor(prefix + "pos_embed.weight", table));
  for (int64_t block = 0; block < vision.depth; ++block) {
    weights.blocks.push_back(read_vision_block(reader, vision, prefix + "blocks." + std::to_string(block) + "."));
  }
  weights.merger = read_merger(reader, vision, prefix + "merger.", vision.hidden_size);
  for (size_t level = 0; level < vision.deepstack_blocks.size(); ++level) {
    const std::string merger = prefix + "deepstack_merger_list." + std::to_string(level) + ".";
    weights.deepstack_mergers.push_back(read_merger(reader, vision, merger, vision.merged_size()));
  }
  return weights;
}

}  // namespace

DenseWeights load_dense_weights(const Checkpoint& checkpoint, const ModelConfig& config) {
  CheckpointReader reader(checkpoint);
  const Shape vocabulary{config.vocab_size, config.hidden_size};
  ModelWeights weights;
  weights.embedding = reader.tensor(config.text_prefix + "embed_tokens.weight", vocabulary);
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) weights.layers.push_back(read_layer(reader, config, layer));
  weights.final_norm = reader.tensor(config.text_prefix + "norm.weight", {config.hidden_size});
  weights.head.weight = config.tie_word_embeddings ? weights.embedding : reader.tensor("lm_head.weight", vocabulary);
  if (config.vision) weights.vision = read_vision(reader, config);
  return {std::move(weights), reader.mapped_bytes()};
}

}  // namespace skipper

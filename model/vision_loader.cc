#include "model/vision_loader.h"

namespace skipper {
namespace {

constexpr float kNormEpsilon = 1e-6f;

// Reads parts of the tower in one packing.
struct VisionReader {
  CheckpointReader& reader;
  const VisionConfig& vision;
  const PackingFormat& packing;

  LayerNormWeights norm(const std::string& name, int64_t size) {
    LayerNormWeights weights = reader.layer_norm(name, size);
    weights.epsilon = kNormEpsilon;
    return weights;
  }
  PackedLinear linear(const std::string& name, const Shape& shape) {
    return reader.linear(name, shape, Bias::kPresent, packing);
  }
  void read_qkv(const std::string& name, VisionBlockWeights& weights);
  VisionBlockWeights block(const std::string& prefix);
  PatchMergerWeights merger(const std::string& prefix, int64_t norm_size);
  PackedLinear patch_embedding(const std::string& name);
};

// One tensor in the checkpoint, of which queries and keys get turned.
void VisionReader::read_qkv(const std::string& name, VisionBlockWeights& weights) {
  const int64_t size = vision.hidden_size;
  const Tensor all = reader.view(name + ".weight", {3 * size, size});
  const Tensor bias = reader.copy(name + ".bias", {3 * size});
  int64_t begin = 0;
  for (PackedLinear* third : {&weights.q, &weights.k, &weights.v}) {
    *third = {reader.pack_later(name + ".weight", all.slice(begin, begin + size), packing), bias.slice(begin, begin + size)};
    begin += size;
  }
}

VisionBlockWeights VisionReader::block(const std::string& prefix) {
  const int64_t size = vision.hidden_size;
  VisionBlockWeights weights;
  weights.attention_norm = norm(prefix + "norm1", size);
  read_qkv(prefix + "attn.qkv", weights);
  weights.projection = linear(prefix + "attn.proj", {size, size});
  weights.mlp_norm = norm(prefix + "norm2", size);
  weights.fc1 = linear(prefix + "mlp.linear_fc1", {vision.intermediate_size, size});
  weights.fc2 = linear(prefix + "mlp.linear_fc2", {size, vision.intermediate_size});
  return weights;
}

PatchMergerWeights VisionReader::merger(const std::string& prefix, int64_t norm_size) {
  const int64_t merged = vision.merged_size();
  return {norm(prefix + "norm", norm_size), linear(prefix + "linear_fc1", {merged, merged}),
          linear(prefix + "linear_fc2", {vision.out_hidden_size, merged})};
}

// The patch convolution has a stride of its own size, so it is a matrix product over flattened patches.
PackedLinear VisionReader::patch_embedding(const std::string& name) {
  const Shape kernel{vision.hidden_size, vision.in_channels, vision.temporal_patch_size, vision.patch_size,
                     vision.patch_size};
  const Tensor flat = reader.view(name + ".weight", kernel).reshaped({vision.hidden_size, vision.patch_elements()});
  return {reader.pack_later(name + ".weight", flat, packing), reader.copy(name + ".bias", {vision.hidden_size})};
}

}  // namespace

VisionWeights load_vision_weights(const ModelConfig& config, const PackingFormat& packing, CheckpointReader& reader) {
  const VisionConfig& vision = *config.vision;
  const std::string& prefix = config.vision_prefix;
  VisionReader from{reader, vision, packing};
  VisionWeights weights;
  weights.patch_embedding = from.patch_embedding(prefix + "patch_embed.proj");
  const Shape table{vision.position_grid * vision.position_grid, vision.hidden_size};
  weights.position_table = as_f32(reader.copy(prefix + "pos_embed.weight", table));
  for (int64_t block = 0; block < vision.depth; ++block) {
    weights.blocks.push_back(from.block(prefix + "blocks." + std::to_string(block) + "."));
  }
  weights.merger = from.merger(prefix + "merger.", vision.hidden_size);
  for (size_t level = 0; level < vision.deepstack_blocks.size(); ++level) {
    const std::string merger = prefix + "deepstack_merger_list." + std::to_string(level) + ".";
    weights.deepstack_mergers.push_back(from.merger(merger, vision.merged_size()));
  }
  return weights;
}

}  // namespace skipper

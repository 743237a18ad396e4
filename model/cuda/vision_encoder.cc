#include "model/cuda/vision_encoder.h"

#include <array>
#include <cmath>
#include <string>

#include "base/error.h"
#include "kernels/cuda/decoder_rows.h"
#include "kernels/cuda/matrix_products.h"
#include "kernels/cuda/packed_attention.h"
#include "kernels/cuda/vision_rows.h"
#include "model/vision_encoder.h"
#include "model/vision_positions.h"

namespace skipper::cuda {
namespace {

int64_t num_tokens(const ImagePatches& image, const VisionConfig& config) {
  return image.num_patches() / config.merge_unit();
}

// Rows meet tensor cores and are read in vectors.
void check_sizes(const VisionConfig& config) {
  constexpr int64_t kMultiple = 8;
  for (const int64_t size : {config.head_dim(), config.hidden_size, config.intermediate_size, config.patch_elements()}) {
    if (size % kMultiple == 0) continue;
    throw InvalidRequest("a vision tower with rows of " + std::to_string(size) + "; on a GPU expected multiples of 8", "model");
  }
  if (config.head_dim() > 128) {
    throw InvalidRequest("vision heads of " + std::to_string(config.head_dim()) + "; on a GPU expected at most 128", "model");
  }
}

LayerNormWeights upload_norm(const LayerNormWeights& weights, Stream& stream) {
  return {upload_f32(weights.weight, stream), upload_f32(weights.bias, stream), weights.epsilon};
}

DeviceLinear upload_one(const PackedLinear& weights, Stream& stream) { return upload_linear({&weights, 1}, stream); }

// The first half of the angles turns with the row, the second with the column.
Tensor upload_rotary_axis(const VisionConfig& config, Stream& stream) {
  Tensor axis = Tensor::empty({config.head_dim() / 2}, DType::kI32);
  for (int64_t i = 0; i < axis.dim(0); ++i) axis.data<int32_t>()[i] = i < axis.dim(0) / 2 ? 1 : 2;
  return upload(axis, stream);
}

Tensor upload_rotary_frequency(const VisionConfig& config, Stream& stream) {
  const std::vector<float> of_axis = vision_rotary_frequencies(config);
  Tensor frequency = Tensor::empty({config.head_dim() / 2}, DType::kF32);
  for (int64_t i = 0; i < frequency.dim(0); ++i) {
    frequency.data<float>()[i] = of_axis[static_cast<size_t>(i) % of_axis.size()];
  }
  return upload(frequency, stream);
}

// Patches see the patches of their own frame.
Tensor upload_frame_offsets(const ImagePatches& image, Stream& stream) {
  Tensor offsets = Tensor::empty({image.grid_t + 1}, DType::kI32);
  for (int64_t frame = 0; frame <= image.grid_t; ++frame) {
    offsets.data<int32_t>()[frame] = static_cast<int32_t>(frame * image.grid_h * image.grid_w);
  }
  return upload(offsets, stream);
}

Tensor make(const Shape& shape, DType dtype, Stream& stream) { return Tensor::empty(shape, dtype, stream.device()); }

}  // namespace

// Working memory of one image with P patches, T = P / merge² tokens and M = merge² · Hv.
struct VisionEncoder::Buffers {
  Buffers(const ImagePatches& image, const VisionConfig& config, Stream& stream)
      : num_patches(image.num_patches()),
        frame_patches(image.grid_h * image.grid_w),
        frame_offsets(upload_frame_offsets(image, stream)),
        cos_sin(make({num_patches, config.head_dim()}, DType::kF32, stream)),
        hidden(make({num_patches, config.hidden_size}, DType::kF32, stream)),
        normed(make(hidden.shape(), DType::kBF16, stream)),
        qkv(make({num_patches, 3 * config.hidden_size}, DType::kF32, stream)),
        attended(make(hidden.shape(), DType::kBF16, stream)),
        sublayer_output(make(hidden.shape(), DType::kF32, stream)),
        inner(make({num_patches, config.intermediate_size}, DType::kF32, stream)),
        activated(make(inner.shape(), DType::kBF16, stream)),
        merged(make({num_tokens(image, config), config.merged_size()}, DType::kF32, stream)),
        merged_activated(make(merged.shape(), DType::kBF16, stream)) {
    const Shape padded{num_patches, config.num_heads, padded_head_dim(config.head_dim())};
    for (Tensor* part : {&heads.q, &heads.k, &heads.v}) *part = make(padded, DType::kBF16, stream);
  }

  int64_t num_patches;
  int64_t frame_patches;
  Tensor frame_offsets;            // [frames + 1] i32
  Tensor cos_sin;                  // [P, head_dim] f32
  Tensor hidden;                   // [P, Hv] f32, residual stream
  Tensor normed;                   // [P, Hv] bf16
  Tensor qkv;                      // [P, 3 · Hv] f32
  Tensor attended;                 // [P, Hv] bf16
  Tensor sublayer_output;          // [P, Hv] f32
  Tensor inner, activated;         // [P, Iv] f32, bf16
  Tensor merged, merged_activated; // [T, M] f32, bf16
  VisionHeads heads;
};

// The rows of the result that belong to one image.
struct VisionEncoder::Output {
  Tensor embeddings;              // [T, H]
  std::vector<Tensor> deepstack;  // one [T, H] per level
};

VisionEncoder::VisionEncoder(const VisionConfig& config, const VisionWeights& weights, Stream& stream) : config_(config) {
  check_sizes(config);
  patch_embedding_ = upload_one(weights.patch_embedding, stream);
  position_table_ = upload_f32(weights.position_table, stream);
  rotary_axis_ = upload_rotary_axis(config, stream);
  rotary_frequency_ = upload_rotary_frequency(config, stream);
  for (const VisionBlockWeights& block : weights.blocks) blocks_.push_back(upload_block(block, stream));
  merger_ = upload_merger(weights.merger, stream);
  for (const PatchMergerWeights& merger : weights.deepstack_mergers) {
    deepstack_mergers_.push_back(upload_merger(merger, stream));
  }
}

VisionEncoder::Block VisionEncoder::upload_block(const VisionBlockWeights& weights, Stream& stream) {
  const std::array<PackedLinear, 3> qkv{weights.q, weights.k, weights.v};
  return {upload_norm(weights.attention_norm, stream),
          upload_norm(weights.mlp_norm, stream),
          upload_linear(qkv, stream),
          upload_one(weights.projection, stream),
          upload_one(weights.fc1, stream),
          upload_one(weights.fc2, stream)};
}

VisionEncoder::Merger VisionEncoder::upload_merger(const PatchMergerWeights& weights, Stream& stream) {
  return {upload_norm(weights.norm, stream), upload_one(weights.fc1, stream), upload_one(weights.fc2, stream)};
}

ImageFeatures VisionEncoder::encode(std::span<const ImagePatches> images, Stream& stream) const {
  int64_t total = 0;
  for (const ImagePatches& image : images) {
    check_image(image, config_);
    total += num_tokens(image, config_);
  }
  ImageFeatures features;
  features.embeddings = make({total, config_.out_hidden_size}, DType::kF32, stream);
  for (size_t level = 0; level < config_.deepstack_blocks.size(); ++level) {
    features.deepstack.push_back(make({total, config_.out_hidden_size}, DType::kF32, stream));
  }
  int64_t begin = 0;
  for (const ImagePatches& image : images) {
    const int64_t end = begin + num_tokens(image, config_);
    Output output{features.embeddings.slice(begin, end), {}};
    for (const Tensor& level : features.deepstack) output.deepstack.push_back(level.slice(begin, end));
    encode_image(image, output, stream);
    begin = end;
  }
  return features;
}

void VisionEncoder::encode_image(const ImagePatches& image, Output& output, Stream& stream) const {
  Buffers buffers(image, config_, stream);
  embed_patches(image, buffers, stream);
  locate_patches(image, buffers, stream);
  size_t level = 0;
  for (size_t index = 0; index < blocks_.size(); ++index) {
    run_block(blocks_[index], buffers, stream);
    if (level < config_.deepstack_blocks.size() && config_.deepstack_blocks[level] == static_cast<int64_t>(index)) {
      merge_patches(deepstack_mergers_[level], buffers, output.deepstack[level], stream);
      ++level;
    }
  }
  merge_patches(merger_, buffers, output.embeddings, stream);
  stream.synchronize();  // before the buffers go
}

void VisionEncoder::embed_patches(const ImagePatches& image, Buffers& buffers, Stream& stream) const {
  const Shape shape{buffers.num_patches, config_.patch_elements()};
  const Tensor pixels = upload(Tensor::borrow_const(image.pixels.data(), shape, DType::kF32), stream);
  Tensor rounded = make(shape, DType::kBF16, stream);
  round_to_bf16(pixels, rounded, stream);
  linear(rounded, patch_embedding_.weight, buffers.hidden, stream);

  Tensor cells = Tensor::empty({buffers.num_patches, 4}, DType::kI32);
  Tensor weights = Tensor::empty({buffers.num_patches, 4}, DType::kF32);
  position_mix(image, config_, cells, weights);
  const Tensor device_cells = upload(cells, stream), device_weights = upload(weights, stream);
  add_positions({position_table_, device_cells, device_weights}, patch_embedding_.bias, buffers.hidden, stream);
  stream.synchronize();  // before the pixels go
}

void VisionEncoder::locate_patches(const ImagePatches& image, Buffers& buffers, Stream& stream) const {
  Tensor places = Tensor::empty({buffers.num_patches, 3}, DType::kI32);
  patch_places(image, config_, places);
  const Tensor device_places = upload(places, stream);
  rotary_cos_sin(device_places, {rotary_axis_, rotary_frequency_}, buffers.cos_sin, stream);
  stream.synchronize();  // before the places go
}

void VisionEncoder::run_block(const Block& block, Buffers& buffers, Stream& stream) const {
  layer_norm_to_bf16(buffers.hidden, block.attention_norm, buffers.normed, stream);
  attend(block, buffers, stream);
  add_with_bias(buffers.sublayer_output, block.projection.bias, buffers.hidden, stream);

  layer_norm_to_bf16(buffers.hidden, block.mlp_norm, buffers.normed, stream);
  linear(buffers.normed, block.fc1.weight, buffers.inner, stream);
  gelu(buffers.inner, block.fc1.bias, config_.activation, buffers.activated, stream);
  linear(buffers.activated, block.fc2.weight, buffers.sublayer_output, stream);
  add_with_bias(buffers.sublayer_output, block.fc2.bias, buffers.hidden, stream);
}

void VisionEncoder::attend(const Block& block, Buffers& buffers, Stream& stream) const {
  linear(buffers.normed, block.qkv.weight, buffers.qkv, stream);
  split_vision_heads({buffers.qkv, block.qkv.bias, buffers.cos_sin}, buffers.heads, stream);
  const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim()));
  const VisionHeads& heads = buffers.heads;
  packed_attention({heads.q, heads.k, heads.v, buffers.frame_offsets, buffers.frame_patches, scale}, buffers.attended, stream);
  linear(buffers.attended, block.projection.weight, buffers.sublayer_output, stream);
}

// out [T, H] = mlp of the joined patches, which lie side by side already. Normed patch by patch or joined, as the weights say.
void VisionEncoder::merge_patches(const Merger& merger, Buffers& buffers, Tensor& out, Stream& stream) const {
  const int64_t norm_size = merger.norm.weight.dim(0);
  const Shape rows{buffers.hidden.num_elements() / norm_size, norm_size};
  Tensor normed = buffers.normed.reshaped(rows);
  layer_norm_to_bf16(buffers.hidden.reshaped(rows), merger.norm, normed, stream);
  linear(buffers.normed.reshaped(buffers.merged.shape()), merger.fc1.weight, buffers.merged, stream);
  gelu(buffers.merged, merger.fc1.bias, GeluForm::kErf, buffers.merged_activated, stream);
  linear(buffers.merged_activated, merger.fc2.weight, out, stream);
  add_bias(merger.fc2.bias, out, stream);
}

}  // namespace skipper::cuda

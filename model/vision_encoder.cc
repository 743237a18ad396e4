#include "model/vision_encoder.h"

#include <cmath>
#include <string>

#include "base/error.h"
#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/gelu.h"
#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "kernels/rope.h"
#include "model/vision_positions.h"

namespace skipper {
namespace {

int64_t num_tokens(const ImagePatches& image, const VisionConfig& config) {
  return image.num_patches() / config.merge_unit();
}

Tensor make_f32(const Shape& shape) { return Tensor::empty(shape, DType::kF32); }

// [P, heads · D] as the attention kernels see it.
Tensor as_heads(const Tensor& rows, const VisionConfig& config) {
  return rows.reshaped({rows.dim(0), config.num_heads, config.head_dim()});
}

// Patches see the patches of their own frame.
Tensor frame_offsets(const ImagePatches& image) {
  Tensor offsets = Tensor::empty({image.grid_t + 1}, DType::kI32);
  for (int64_t frame = 0; frame <= image.grid_t; ++frame) {
    offsets.data<int32_t>()[frame] = static_cast<int32_t>(frame * image.grid_h * image.grid_w);
  }
  return offsets;
}

// out [P / merge², H] = mlp of the joined patches, which lie side by side already. hidden [P, Hv].
void merge_patches(const Tensor& hidden, const PatchMergerWeights& weights, Tensor& out, Stream& stream) {
  const Shape joined_shape{out.dim(0), weights.fc1.weight.num_columns};
  const int64_t norm_size = weights.norm.weight.dim(0);
  Tensor normed = make_f32({hidden.num_elements() / norm_size, norm_size});
  layer_norm(hidden.reshaped(normed.shape()), weights.norm, normed, stream);
  Tensor inner = make_f32({out.dim(0), weights.fc1.weight.num_rows});
  linear(normed.reshaped(joined_shape), weights.fc1, inner, stream);
  gelu(inner, GeluForm::kErf, stream);
  linear(inner, weights.fc2, out, stream);
}

}  // namespace

void check_image(const ImagePatches& image, const VisionConfig& config) {
  const int64_t merge = config.spatial_merge_size;
  const std::string grid = std::to_string(image.grid_t) + " x " + std::to_string(image.grid_h) + " x " +
                           std::to_string(image.grid_w) + " patches";
  if (image.grid_t < 1 || image.grid_h < 1 || image.grid_w < 1 || image.grid_h % merge != 0 || image.grid_w % merge != 0) {
    throw InvalidRequest("an image of " + grid + "; expected positive multiples of " + std::to_string(merge) +
                             " down and across",
                         "messages");
  }
  const int64_t expected = image.num_patches() * config.patch_elements();
  if (static_cast<int64_t>(image.pixels.size()) != expected) {
    throw InvalidRequest("an image of " + grid + " holds " + std::to_string(image.pixels.size()) + " values; expected " +
                             std::to_string(expected),
                         "messages");
  }
}

// Working memory of one image with P patches.
struct VisionEncoder::Buffers {
  Buffers(const ImagePatches& image, const VisionConfig& config)
      : hidden(make_f32({image.num_patches(), config.hidden_size})),
        normed(make_f32(hidden.shape())),
        q(make_f32(hidden.shape())),
        k(make_f32(hidden.shape())),
        v(make_f32(hidden.shape())),
        attended(make_f32(hidden.shape())),
        sublayer_output(make_f32(hidden.shape())),
        inner(make_f32({image.num_patches(), config.intermediate_size})),
        angles(make_f32({image.num_patches(), config.head_dim() / 2})),
        offsets(frame_offsets(image)) {}

  Tensor hidden;           // [P, Hv] residual stream
  Tensor normed;           // [P, Hv]
  Tensor q, k, v;          // [P, Hv]
  Tensor attended;         // [P, Hv]
  Tensor sublayer_output;  // [P, Hv]
  Tensor inner;            // [P, Iv]
  Tensor angles;           // [P, head_dim / 2]
  Tensor offsets;          // [frames + 1] i32
};

// The rows of the result that belong to one image.
struct VisionEncoder::Output {
  Tensor embeddings;              // [tokens, H]
  std::vector<Tensor> deepstack;  // one [tokens, H] per level
};

VisionEncoder::VisionEncoder(const VisionConfig& config, VisionWeights weights)
    : config_(config), weights_(std::move(weights)) {}

ImageFeatures VisionEncoder::encode(std::span<const ImagePatches> images, Stream& stream) const {
  int64_t total = 0;
  for (const ImagePatches& image : images) {
    check_image(image, config_);
    total += num_tokens(image, config_);
  }
  ImageFeatures features;
  features.embeddings = make_f32({total, config_.out_hidden_size});
  for (size_t level = 0; level < config_.deepstack_blocks.size(); ++level) {
    features.deepstack.push_back(make_f32({total, config_.out_hidden_size}));
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

void VisionEncoder::encode_image(const ImagePatches& image, const Output& output, Stream& stream) const {
  Buffers buffers(image, config_);
  embed_patches(image, buffers, stream);
  vision_rotary_angles(image, config_, buffers.angles);
  size_t level = 0;
  for (size_t index = 0; index < weights_.blocks.size(); ++index) {
    run_block(weights_.blocks[index], buffers, stream);
    if (level < config_.deepstack_blocks.size() && config_.deepstack_blocks[level] == static_cast<int64_t>(index)) {
      Tensor features = output.deepstack[level];
      merge_patches(buffers.hidden, weights_.deepstack_mergers[level], features, stream);
      ++level;
    }
  }
  Tensor embeddings = output.embeddings;
  merge_patches(buffers.hidden, weights_.merger, embeddings, stream);
}

void VisionEncoder::embed_patches(const ImagePatches& image, Buffers& buffers, Stream& stream) const {
  const Tensor pixels =
      Tensor::borrow_const(image.pixels.data(), {image.num_patches(), config_.patch_elements()}, DType::kF32);
  linear(pixels, weights_.patch_embedding, buffers.hidden, stream);
  interpolated_positions(image, config_, weights_.position_table, buffers.sublayer_output);
  add(buffers.sublayer_output, buffers.hidden, stream);
}

void VisionEncoder::run_block(const VisionBlockWeights& block, Buffers& buffers, Stream& stream) const {
  layer_norm(buffers.hidden, block.attention_norm, buffers.normed, stream);
  attend(block, buffers, stream);
  add(buffers.sublayer_output, buffers.hidden, stream);

  layer_norm(buffers.hidden, block.mlp_norm, buffers.normed, stream);
  linear(buffers.normed, block.fc1, buffers.inner, stream);
  gelu(buffers.inner, config_.activation, stream);
  linear(buffers.inner, block.fc2, buffers.sublayer_output, stream);
  add(buffers.sublayer_output, buffers.hidden, stream);
}

void VisionEncoder::attend(const VisionBlockWeights& block, Buffers& buffers, Stream& stream) const {
  linear(buffers.normed, block.q, buffers.q, stream);
  linear(buffers.normed, block.k, buffers.k, stream);
  linear(buffers.normed, block.v, buffers.v, stream);
  Tensor q = as_heads(buffers.q, config_);
  Tensor k = as_heads(buffers.k, config_);
  rope(q, buffers.angles, stream);
  rope(k, buffers.angles, stream);
  Tensor attended = as_heads(buffers.attended, config_);
  const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim()));
  packed_attention({q, k, as_heads(buffers.v, config_), buffers.offsets, scale}, attended, stream);
  linear(buffers.attended, block.projection, buffers.sublayer_output, stream);
}

}  // namespace skipper

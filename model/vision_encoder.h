// The vision tower of Qwen3-VL: patches of an image in, embeddings and deepstack features of its tokens out.
#pragma once

#include <span>

#include "model/batch_input.h"
#include "model/image_patches.h"
#include "model/model_weights.h"
#include "model/vision_config.h"
#include "tensor/device_runtime.h"

namespace skipper {

// Throws InvalidRequest for an image whose pixels do not fill its grid, or whose grid is no multiple of the merge size.
void check_image(const ImagePatches& image, const VisionConfig& config);

// Immutable after construction. Images are encoded one by one, so an image's features have the same bits whatever comes with
// it. Working memory grows with the largest image and is freed at the end: encoding is rare and sizes differ.
class VisionEncoder {
 public:
  VisionEncoder(const VisionConfig& config, VisionWeights weights);

  // Rows in the order of the images. Throws InvalidRequest as check_image().
  ImageFeatures encode(std::span<const ImagePatches> images, Stream& stream) const;

 private:
  struct Buffers;
  struct Output;

  void encode_image(const ImagePatches& image, const Output& output, Stream& stream) const;
  void embed_patches(const ImagePatches& image, Buffers& buffers, Stream& stream) const;
  void run_block(const VisionBlockWeights& block, Buffers& buffers, Stream& stream) const;
  void attend(const VisionBlockWeights& block, Buffers& buffers, Stream& stream) const;

  VisionConfig config_;
  VisionWeights weights_;
};

}  // namespace skipper

// The vision tower of model/vision_encoder.h on a GPU: the same steps, with every row in GPU memory from the pixels on.
#pragma once

#include <span>
#include <vector>

#include "model/batch_input.h"
#include "model/cuda/device_linear.h"
#include "model/image_patches.h"
#include "model/model_weights.h"
#include "model/vision_config.h"
#include "tensor/device_runtime.h"

namespace skipper::cuda {

// Weights rest in GPU memory as they were packed on the host; activations meet them as BF16, the residual stream is FP32.
// Immutable after construction. Images are encoded one by one, so an image's features have the same bits whatever comes with it.
class VisionEncoder {
 public:
  // Copies the weights; the host's may go afterwards. Throws InvalidRequest for formats and sizes that GPU kernels do not take:
  // see upload_linear(); heads must be multiples of 8 up to 128 wide.
  VisionEncoder(const VisionConfig& config, const VisionWeights& weights, Stream& stream);

  // Rows in the order of the images, on the GPU, complete when it returns. Throws InvalidRequest as check_image(), DeviceError
  // without memory. Not for capture: it allocates.
  ImageFeatures encode(std::span<const ImagePatches> images, Stream& stream) const;

 private:
  // Norms: f32 on the GPU.
  struct Block {
    LayerNormWeights attention_norm, mlp_norm;
    DeviceLinear qkv, projection, fc1, fc2;
  };
  struct Merger {
    LayerNormWeights norm;
    DeviceLinear fc1, fc2;
  };
  struct Buffers;
  struct Output;

  static Block upload_block(const VisionBlockWeights& weights, Stream& stream);
  static Merger upload_merger(const PatchMergerWeights& weights, Stream& stream);

  void encode_image(const ImagePatches& image, Output& output, Stream& stream) const;
  void embed_patches(const ImagePatches& image, Buffers& buffers, Stream& stream) const;
  void locate_patches(const ImagePatches& image, Buffers& buffers, Stream& stream) const;
  void run_block(const Block& block, Buffers& buffers, Stream& stream) const;
  void attend(const Block& block, Buffers& buffers, Stream& stream) const;
  void merge_patches(const Merger& merger, Buffers& buffers, Tensor& out, Stream& stream) const;

  VisionConfig config_;
  DeviceLinear patch_embedding_;
  Tensor position_table_;     // [grid · grid, Hv] f32
  Tensor rotary_axis_;        // [head_dim / 2] i32: 1 = row, 2 = column
  Tensor rotary_frequency_;   // [head_dim / 2] f32
  std::vector<Block> blocks_;
  Merger merger_;
  std::vector<Merger> deepstack_mergers_;
};

}  // namespace skipper::cuda

// Dimensions of the vision tower of a Qwen3-VL checkpoint and the tokens that stand for images.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json_fields.h"
#include "kernels/gelu.h"

namespace skipper {

struct VisionConfig {
  int64_t depth = 0;  // blocks
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_heads = 0;
  int64_t in_channels = 0;
  int64_t patch_size = 0;           // pixels, square
  int64_t temporal_patch_size = 0;  // frames
  int64_t spatial_merge_size = 0;   // merge × merge patches become one token
  int64_t out_hidden_size = 0;      // the decoder's hidden size
  int64_t position_grid = 0;        // the learned position table is position_grid × position_grid
  double rope_theta = 10000.0;
  GeluForm activation = GeluForm::kTanh;
  std::vector<int64_t> deepstack_blocks;  // ascending; their outputs feed decoder layers 0, 1, ...

  int32_t image_token_id = -1;
  int32_t video_token_id = -1;
  int32_t vision_start_token_id = -1;
  int32_t vision_end_token_id = -1;

  int64_t head_dim() const { return hidden_size / num_heads; }
  int64_t merge_unit() const { return spatial_merge_size * spatial_merge_size; }
  int64_t merged_size() const { return hidden_size * merge_unit(); }
  int64_t patch_elements() const { return in_channels * temporal_patch_size * patch_size * patch_size; }
};

// What the text part demands of the vision part.
struct VisionRequirements {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
};

// `root` is the whole config.json of a qwen3_vl_moe model. Throws InvalidFile naming the key.
VisionConfig read_vision_config(const JsonFields& root, const VisionRequirements& text);

}  // namespace skipper

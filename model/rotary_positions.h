// Rotary positions of a whole sequence: plain for text, three-dimensional (M-RoPE) around images.
#pragma once

#include <cstdint>
#include <span>

#include "model/model_config.h"
#include "tensor/tensor.h"

namespace skipper {

// Size of one image in patches, before merging.
struct ImageGrid {
  int64_t t = 1;
  int64_t h = 0;
  int64_t w = 0;

  int64_t num_tokens(int64_t merge_size) const { return t * (h / merge_size) * (w / merge_size); }
};

struct RotaryPositions {
  Tensor positions;            // [T, 3] i32: temporal, height, width
  int32_t next_position = 0;   // of the first generated token, all three axes; it then grows by 1 per token
};

// Text counts up on all three axes. An image that starts at position p, h × w tokens after merging, gives its token in row y
// and column x the position (p, p + y, p + x), and the text after it starts at p + max(h, w)
// (Qwen3-VL; transformers' get_rope_index):
//
//   tokens      a  b  [ 2 × 3 image       ]  c
//   temporal    0  1   2  2  2  2  2  2      5
//   height      0  1   2  2  2  3  3  3      5
//   width       0  1   2  3  4  2  3  4      5
//
// `images` in order of appearance; adjacent ones need nothing between them. Throws InvalidRequest when the placeholders in
// `token_ids` are not exactly the images' tokens.
RotaryPositions sequence_rotary_positions(std::span<const int32_t> token_ids, std::span<const ImageGrid> images,
                                          const ModelConfig& config);

}  // namespace skipper

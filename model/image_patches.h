// One preprocessed image as the vision encoder takes it.
#pragma once

#include <cstdint>
#include <vector>

namespace skipper {

// Patches in the order of the Hugging Face Qwen2-VL image processor: grid rows and columns grouped into merge × merge blocks.
struct ImagePatches {
  int64_t grid_t = 1;  // temporal patches
  int64_t grid_h = 0;  // patches down
  int64_t grid_w = 0;  // patches across
  std::vector<float> pixels;  // [grid_t · grid_h · grid_w, channels · temporal_patch · patch · patch], normalised

  int64_t num_patches() const { return grid_t * grid_h * grid_w; }
};

}  // namespace skipper

// A chat as the model takes it.
#pragma once

#include <cstdint>
#include <vector>

#include "model/image_patches.h"

namespace skipper {

struct ProcessedPrompt {
  std::vector<int32_t> token_ids;    // image placeholders included, as many as each image has tokens
  std::vector<ImagePatches> images;  // in the order of their placeholders
};

}  // namespace skipper

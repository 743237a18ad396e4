// A decoded image into the patches that the vision encoder takes, as transformers' Qwen2VLImageProcessorFast makes them.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "model/image_patches.h"
#include "processor/rgb_image.h"

namespace skipper {

// preprocessor_config.json; the defaults are those of the transformers class.
struct ImageProcessorConfig {
  int64_t min_pixels = 56 * 56;         // size.shortest_edge
  int64_t max_pixels = 28 * 28 * 1280;  // size.longest_edge
  int64_t patch_size = 14;
  int64_t temporal_patch_size = 2;
  int64_t merge_size = 2;
  bool rescales = true;    // do_rescale: multiply by rescale_factor
  bool normalizes = true;  // do_normalize: subtract image_mean, divide by image_std
  double rescale_factor = 1.0 / 255.0;
  std::array<double, 3> mean = {0.48145466, 0.4578275, 0.40821073};
  std::array<double, 3> std = {0.26862954, 0.26130258, 0.27577711};

  // Both sides of a resized image are multiples of this.
  int64_t side_factor() const { return patch_size * merge_size; }
};

// Throws InvalidFile naming a key that is unknown, malformed, or asks for arithmetic that is not done here.
ImageProcessorConfig read_image_processor_config(const std::filesystem::path& path);

// The size an image is brought to: multiples of side_factor, pixel count within [min_pixels, max_pixels] where that is possible,
// aspect ratio nearly kept. Throws InvalidRequest for `param` when one side is more than 200 times the other.
ImageSize resized_size(ImageSize size, const ImageProcessorConfig& config, const std::string& param);

// The number of tokens the image takes in the prompt: one per merge × merge patches. Throws like resized_size.
int64_t num_image_tokens(ImageSize size, const ImageProcessorConfig& config, const std::string& param);

// Resizes, normalises and cuts. Throws like resized_size. Thread-safe.
ImagePatches make_image_patches(RgbImage image, const ImageProcessorConfig& config, const std::string& param);

}  // namespace skipper

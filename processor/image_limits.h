// What an image may be before any of its pixels is decoded, and the error of one that is not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "processor/rgb_image.h"

namespace skipper {

// All inclusive. A header claims a size in a few bytes, so everything here is checked before memory is taken for it.
struct ImageLimits {
  size_t max_bytes = size_t{20} << 20;  // of the file
  int64_t max_pixels = int64_t{16} << 20;
  int64_t max_side = 32768;
  int64_t min_side = 1;
};

// An image we refuse, in a fixed sentence of ours: the text of a decoding library may tell of our memory and is never passed on.
// decode_image turns it into an InvalidRequest that names the field.
class ImageRefused : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// `format` is "PNG" or "JPEG". Throws ImageRefused.
void check_image_size(const ImageLimits& limits, ImageSize size, const std::string& format);

}  // namespace skipper

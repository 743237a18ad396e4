// PNG files of every colour type and depth into RGB, on libpng.
#pragma once

#include <cstdint>
#include <span>

#include "processor/exif_orientation.h"
#include "processor/image_limits.h"

namespace skipper {

// `file` starts with the PNG signature. Throws ImageRefused.
StoredImage decode_png(std::span<const uint8_t> file, const ImageLimits& limits);

}  // namespace skipper

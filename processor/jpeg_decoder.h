// JPEG files, grey, colour and CMYK, baseline and progressive, into RGB, on libjpeg-turbo.
#pragma once

#include <cstdint>
#include <span>

#include "processor/exif_orientation.h"
#include "processor/image_limits.h"

namespace skipper {

// `file` starts with the JPEG signature. Throws ImageRefused.
StoredImage decode_jpeg(std::span<const uint8_t> file, const ImageLimits& limits);

}  // namespace skipper

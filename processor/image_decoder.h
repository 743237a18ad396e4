// The bytes of a PNG or JPEG file from a client into an upright RGB image, under limits.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "processor/image_limits.h"
#include "processor/rgb_image.h"

namespace skipper {

// Gives the pixels that transformers' image processors start from: the EXIF orientation is applied, transparency is laid on
// white, 16 bits are cut to the upper 8, CMYK is read in Adobe's polarity. Colour profiles and gamma are ignored, as there.
// 16-bit grey is the exception: there Pillow clips every value above 255 to white, here its upper 8 bits count.
//
// `param` is the path of the request's field. Throws InvalidRequest: not a PNG or JPEG, over a limit, truncated, or corrupt.
// Thread-safe.
RgbImage decode_image(std::span<const uint8_t> file, const ImageLimits& limits, const std::string& param);

}  // namespace skipper

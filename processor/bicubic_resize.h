// Bicubic resampling with antialiasing, rounded like Pillow's and torch's for 8-bit images.
#pragma once

#include "processor/rgb_image.h"

namespace skipper {

// The image at another size, bit for bit as torch.nn.functional.interpolate(mode="bicubic", antialias=True) gives it for uint8:
// cubic kernel with a = -0.5 widened by the reduction, 16-bit fixed-point weights, columns first, rounded to 8 bits in between.
RgbImage resize_bicubic(RgbImage image, ImageSize size);

}  // namespace skipper

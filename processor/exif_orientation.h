// Which way up a camera held the picture, read from an EXIF block.
#pragma once

#include <cstdint>
#include <span>

#include "processor/rgb_image.h"

namespace skipper {

// The values of EXIF tag 0x0112: what must be done to the stored image to see it upright.
enum class ExifOrientation : uint8_t {
  kUpright = 1,
  kMirrored = 2,
  kUpsideDown = 3,
  kFlipped = 4,  // top and bottom exchanged
  kTransposed = 5,
  kNeedsRightTurn = 6,
  kTransversed = 7,
  kNeedsLeftTurn = 8,
};

// An image as the file holds it, not yet upright.
struct StoredImage {
  RgbImage image;
  ExifOrientation orientation = ExifOrientation::kUpright;
};

// `tiff` starts at the byte order mark ("II" or "MM"). A damaged block says nothing: kUpright.
ExifOrientation exif_orientation(std::span<const uint8_t> tiff);

}  // namespace skipper

#include "processor/image_limits.h"

namespace skipper {

void check_image_size(const ImageLimits& limits, ImageSize size, const std::string& format) {
  const std::string dimensions = std::to_string(size.width) + " x " + std::to_string(size.height);
  if (size.width <= 0 || size.height <= 0) throw ImageRefused(format + " of " + dimensions + " pixels is empty");
  if (size.width > limits.max_side || size.height > limits.max_side) {
    throw ImageRefused("image is " + dimensions + " pixels, more than the limit of " + std::to_string(limits.max_side) +
                       " on a side");
  }
  if (size.width < limits.min_side || size.height < limits.min_side) {
    throw ImageRefused("image is " + dimensions + " pixels, less than the limit of " + std::to_string(limits.min_side) +
                       " on a side");
  }
  if (size.num_pixels() > limits.max_pixels) {
    throw ImageRefused("image has " + std::to_string(size.num_pixels()) + " pixels, more than the limit of " +
                       std::to_string(limits.max_pixels));
  }
}

}  // namespace skipper

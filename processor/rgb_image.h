// A decoded picture: 8 bits per channel, red, green, blue, no padding between rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace skipper {

struct ImageSize {
  int64_t height = 0;
  int64_t width = 0;

  int64_t num_pixels() const { return height * width; }
  bool operator==(const ImageSize&) const = default;
};

struct RgbImage {
  ImageSize size;
  std::vector<uint8_t> pixels;  // [height, width, 3]

  explicit RgbImage(ImageSize image_size)
      : size(image_size), pixels(static_cast<size_t>(image_size.num_pixels()) * 3) {}

  uint8_t* row(int64_t y) { return pixels.data() + y * size.width * 3; }
  const uint8_t* row(int64_t y) const { return pixels.data() + y * size.width * 3; }
};

}  // namespace skipper

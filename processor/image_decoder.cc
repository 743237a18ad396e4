#include "processor/image_decoder.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "processor/exif_orientation.h"
#include "processor/jpeg_decoder.h"
#include "processor/png_decoder.h"

namespace skipper {
namespace {

constexpr std::array<uint8_t, 8> kPngSignature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
constexpr std::array<uint8_t, 3> kJpegSignature = {0xff, 0xd8, 0xff};

template <size_t N>
bool starts_with(std::span<const uint8_t> file, const std::array<uint8_t, N>& signature) {
  return file.size() >= N && std::equal(signature.begin(), signature.end(), file.begin());
}

struct PixelPosition {
  int64_t y = 0;
  int64_t x = 0;
};

// Where in the stored image the pixel `at` of the upright one comes from.
PixelPosition stored_position(PixelPosition at, ImageSize stored, ExifOrientation orientation) {
  const int64_t last_row = stored.height - 1;
  const int64_t last_column = stored.width - 1;
  switch (orientation) {
    case ExifOrientation::kUpright: return at;
    case ExifOrientation::kMirrored: return {at.y, last_column - at.x};
    case ExifOrientation::kUpsideDown: return {last_row - at.y, last_column - at.x};
    case ExifOrientation::kFlipped: return {last_row - at.y, at.x};
    case ExifOrientation::kTransposed: return {at.x, at.y};
    case ExifOrientation::kNeedsRightTurn: return {last_row - at.x, at.y};
    case ExifOrientation::kTransversed: return {last_row - at.x, last_column - at.y};
    case ExifOrientation::kNeedsLeftTurn: return {at.x, last_column - at.y};
  }
  return at;
}

RgbImage upright(StoredImage stored) {
  const auto& [image, orientation] = stored;
  if (orientation == ExifOrientation::kUpright) return std::move(stored.image);
  const bool swaps_sides = orientation >= ExifOrientation::kTransposed;
  RgbImage out(swaps_sides ? ImageSize{image.size.width, image.size.height} : image.size);
  for (int64_t y = 0; y < out.size.height; ++y) {
    uint8_t* row = out.row(y);
    for (int64_t x = 0; x < out.size.width; ++x) {
      const PixelPosition from = stored_position({y, x}, image.size, orientation);
      std::copy_n(image.row(from.y) + from.x * 3, 3, row + x * 3);
    }
  }
  return out;
}

RgbImage decode(std::span<const uint8_t> file, const ImageLimits& limits) {
  if (file.size() > limits.max_bytes) {
    throw ImageRefused("image file has " + std::to_string(file.size()) + " bytes, more than the limit of " +
                       std::to_string(limits.max_bytes));
  }
  if (starts_with(file, kPngSignature)) return upright(decode_png(file, limits));
  if (starts_with(file, kJpegSignature)) return upright(decode_jpeg(file, limits));
  throw ImageRefused("image is not a PNG or JPEG");
}

}  // namespace

RgbImage decode_image(std::span<const uint8_t> file, const ImageLimits& limits, const std::string& param) {
  try {
    return decode(file, limits);
  } catch (const ImageRefused& refused) {
    throw InvalidRequest(refused.what(), param);
  }
}

}  // namespace skipper

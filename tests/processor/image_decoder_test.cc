#include "processor/image_decoder.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "image_fixtures.h"
#include "processor/exif_orientation.h"

namespace skipper {
namespace {

std::string refusal(const std::vector<uint8_t>& file, const ImageLimits& limits) {
  try {
    decode_image(file, limits, "messages[0].content[1].image_url.url");
  } catch (const InvalidRequest& error) {
    EXPECT_EQ(error.param(), "messages[0].content[1].image_url.url");
    return error.what();
  }
  return "";
}

// Pixel values of every format are compared with Pillow's in image_processor_test: most fixtures need no resizing.

TEST(ImageDecoder, DecodesOnePixel) {
  const RgbImage image = decode_image(read_image_fixture("one_pixel.png"), {}, "image");
  EXPECT_EQ(image.size, (ImageSize{1, 1}));
  EXPECT_EQ(image.pixels.size(), 3u);
}

TEST(ImageDecoder, SwapsSidesWhenTheCameraLayOnItsSide) {
  for (int orientation = 2; orientation <= 8; ++orientation) {
    const RgbImage image = decode_image(read_image_fixture("orientation_" + std::to_string(orientation) + ".jpg"), {}, "image");
    EXPECT_EQ(image.size, orientation >= 5 ? (ImageSize{64, 32}) : (ImageSize{32, 64})) << orientation;
  }
}

TEST(ImageDecoder, RefusesFilesOverTheByteLimitAndTakesThoseAtIt) {
  const std::vector<uint8_t> file = read_image_fixture("444.jpg");
  EXPECT_EQ(refusal(file, {.max_bytes = file.size()}), "");
  const std::string num_bytes = std::to_string(file.size());
  EXPECT_EQ(refusal(file, {.max_bytes = file.size() - 1}),
            "image file has " + num_bytes + " bytes, more than the limit of " + std::to_string(file.size() - 1));
}

TEST(ImageDecoder, RefusesImagesOverOrUnderASizeLimit) {
  for (const char* name : {"rgb.png", "444.jpg"}) {  // both 96 x 64
    const std::vector<uint8_t> file = read_image_fixture(name);
    EXPECT_EQ(refusal(file, {.max_pixels = 6144, .max_side = 96, .min_side = 64}), "");
    EXPECT_EQ(refusal(file, {.max_pixels = 6143}), "image has 6144 pixels, more than the limit of 6143");
    EXPECT_EQ(refusal(file, {.max_side = 95}), "image is 96 x 64 pixels, more than the limit of 95 on a side");
    EXPECT_EQ(refusal(file, {.min_side = 65}), "image is 96 x 64 pixels, less than the limit of 65 on a side");
  }
}

std::vector<uint8_t> tiff(const std::string& order, const std::vector<uint8_t>& rest) {
  std::vector<uint8_t> bytes(order.begin(), order.end());
  bytes.insert(bytes.end(), rest.begin(), rest.end());
  return bytes;
}

TEST(ExifOrientation, IsReadInBothByteOrders) {
  const auto little = tiff("II", {42, 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0});
  const auto big = tiff("MM", {0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0});
  EXPECT_EQ(exif_orientation(little), ExifOrientation::kNeedsRightTurn);
  EXPECT_EQ(exif_orientation(big), ExifOrientation::kNeedsRightTurn);
}

TEST(ExifOrientation, IsUprightWhenTheBlockIsDamaged) {
  EXPECT_EQ(exif_orientation({}), ExifOrientation::kUpright);
  const auto far_directory = tiff("II", {42, 0, 0xff, 0xff, 0xff, 0xff});
  EXPECT_EQ(exif_orientation(far_directory), ExifOrientation::kUpright);
  const auto value_9 = tiff("II", {42, 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, 9, 0, 0, 0});
  EXPECT_EQ(exif_orientation(value_9), ExifOrientation::kUpright);
  const auto many_entries = tiff("II", {42, 0, 8, 0, 0, 0, 0xff, 0xff});
  EXPECT_EQ(exif_orientation(many_entries), ExifOrientation::kUpright);
}

}  // namespace
}  // namespace skipper

#include "processor/image_processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_fields.h"
#include "image_fixtures.h"
#include "processor/bicubic_resize.h"
#include "processor/image_decoder.h"

namespace skipper {
namespace {

using ::testing::HasSubstr;

struct Fixture {
  std::string image;
  std::string config;
  std::string pixels;   // resized 8-bit pixels [height, width, 3]
  std::string patches;  // float patches; empty for most
  std::vector<int64_t> grid;
};

std::vector<Fixture> fixtures() {
  std::vector<Fixture> all;
  for (const auto& entry : read_json_file(image_fixture_path("expected.json"))) {
    all.push_back({entry["image"], entry["config"], entry["pixels"], entry.value("patches", ""), entry["grid"]});
  }
  return all;
}

class ImageProcessorFixtures : public ::testing::TestWithParam<Fixture> {
 protected:
  ImageProcessorConfig config_ = read_image_processor_config(image_fixture_path(GetParam().config));
  RgbImage image_ = decode_image(read_image_fixture(GetParam().image), {}, "image");
};

TEST_P(ImageProcessorFixtures, PixelsEqualThoseOfTransformers) {
  const std::vector<uint8_t> expected = read_image_fixture(GetParam().pixels);
  const ImageSize size = resized_size(image_.size, config_, "image");
  const RgbImage resized = resize_bicubic(image_, size);
  ASSERT_EQ(resized.pixels.size(), expected.size());
  int max_error = 0;
  for (size_t i = 0; i < expected.size(); ++i) max_error = std::max(max_error, std::abs(resized.pixels[i] - expected[i]));
  RecordProperty("max_error_in_255ths", max_error);
  EXPECT_EQ(max_error, 0);
}

// Written from the definition, one element at a time:
// [grid_h / merge, grid_w / merge, merge, merge, channel, temporal, patch, patch].
float patch_element(const ImageProcessorConfig& config, const RgbImage& resized, int64_t grid_w, int64_t index) {
  const auto next = [&](int64_t extent) {
    const int64_t digit = index % extent;
    index /= extent;
    return digit;
  };
  const int64_t x_in_patch = next(config.patch_size);
  const int64_t y_in_patch = next(config.patch_size);
  next(config.temporal_patch_size);
  const int64_t channel = next(3);
  const int64_t merge_x = next(config.merge_size);
  const int64_t merge_y = next(config.merge_size);
  const int64_t block_x = next(grid_w / config.merge_size);
  const int64_t y = (index * config.merge_size + merge_y) * config.patch_size + y_in_patch;
  const int64_t x = (block_x * config.merge_size + merge_x) * config.patch_size + x_in_patch;
  const double byte = resized.row(y)[x * 3 + channel];
  return static_cast<float>((byte / 255.0 - config.mean[channel]) / config.std[channel]);
}

TEST_P(ImageProcessorFixtures, PatchesAreThePixelsNormalisedInPatchOrder) {
  const ImagePatches patches = make_image_patches(image_, config_, "image");
  ASSERT_THAT(GetParam().grid, ::testing::ElementsAre(patches.grid_t, patches.grid_h, patches.grid_w));
  const RgbImage resized = resize_bicubic(image_, resized_size(image_.size, config_, "image"));
  EXPECT_EQ(resized.size, (ImageSize{patches.grid_h * config_.patch_size, patches.grid_w * config_.patch_size}));
  EXPECT_EQ(num_image_tokens(image_.size, config_, "image"), patches.num_patches() / (config_.merge_size * config_.merge_size));
  ASSERT_EQ(patches.pixels.size(), resized.pixels.size() * static_cast<size_t>(config_.temporal_patch_size));
  for (size_t i = 0; i < patches.pixels.size(); ++i) {
    ASSERT_NEAR(patches.pixels[i], patch_element(config_, resized, patches.grid_w, static_cast<int64_t>(i)), 2e-6) << i;
  }
}

TEST(ImageProcessor, FloatPatchesEqualThoseOfTransformers) {
  int num_compared = 0;
  for (const Fixture& fixture : fixtures()) {
    if (fixture.patches.empty()) continue;
    const std::vector<uint8_t> bytes = read_image_fixture(fixture.patches);
    std::vector<float> expected(bytes.size() / sizeof(float));
    std::memcpy(expected.data(), bytes.data(), bytes.size());
    const ImageProcessorConfig config = read_image_processor_config(image_fixture_path(fixture.config));
    const RgbImage image = decode_image(read_image_fixture(fixture.image), {}, "image");
    EXPECT_EQ(make_image_patches(image, config, "image").pixels, expected) << fixture.image;
    ++num_compared;
  }
  EXPECT_EQ(num_compared, 3);
}

INSTANTIATE_TEST_SUITE_P(All, ImageProcessorFixtures, ::testing::ValuesIn(fixtures()), [](const auto& info) {
  std::string name = info.param.image + "_" + info.param.config;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
});

TEST(ImageProcessor, RefusesExtremeAspectRatios) {
  const ImageProcessorConfig config;
  EXPECT_NO_THROW(resized_size({1, 200}, config, "image"));
  try {
    resized_size({1, 201}, config, "messages[0].content[0].image_url.url");
    FAIL();
  } catch (const InvalidRequest& error) {
    EXPECT_EQ(error.param(), "messages[0].content[0].image_url.url");
    EXPECT_STREQ(error.what(), "image is 201 x 1 pixels; its longer side may be at most 200 times the shorter");
  }
  EXPECT_THROW(resized_size({2001, 10}, config, "image"), InvalidRequest);
}

TEST(ImageProcessor, RoundsHalvesToEvenMultiples) {
  ImageProcessorConfig config;
  config.patch_size = 16;
  config.min_pixels = 1;
  config.max_pixels = 1 << 20;
  EXPECT_EQ(resized_size({48, 80}, config, "image"), (ImageSize{64, 64}));
  EXPECT_EQ(resized_size({49, 81}, config, "image"), (ImageSize{64, 96}));
}

TEST(BicubicResize, KeepsAFlatColourAtEverySize) {
  RgbImage flat({7, 5});
  for (size_t i = 0; i < flat.pixels.size(); ++i) flat.pixels[i] = static_cast<uint8_t>(i % 3 == 0 ? 255 : i % 3 == 1 ? 0 : 131);
  for (const ImageSize size : {ImageSize{1, 1}, ImageSize{7, 5}, ImageSize{3, 11}, ImageSize{64, 96}}) {
    const RgbImage out = resize_bicubic(flat, size);
    ASSERT_EQ(out.size, size);
    for (size_t i = 0; i < out.pixels.size(); ++i) ASSERT_EQ(out.pixels[i], flat.pixels[i % 3]);
  }
}

// Writes a config into a file of its own and gives the error of reading it; empty when it is accepted.
std::string config_error(const nlohmann::json& config) {
  const auto path = std::filesystem::temp_directory_path() / ("skipper_preprocessor_" + std::to_string(::getpid()) + ".json");
  std::ofstream(path) << config;
  std::string message;
  try {
    read_image_processor_config(path);
  } catch (const InvalidFile& error) {
    message = error.what();
  }
  std::filesystem::remove(path);
  return message;
}

TEST(ImageProcessorConfig, ReadsTheDemoModel) {
  const auto path = std::filesystem::path(SKIPPER_SOURCE_DIR) / "models/demo/preprocessor_config.json";
  const ImageProcessorConfig config = read_image_processor_config(path);
  EXPECT_EQ(config.min_pixels, 1024);
  EXPECT_EQ(config.max_pixels, 50176);
  EXPECT_EQ(config.side_factor(), 32);
  EXPECT_EQ(config.mean[2], 0.5);
}

TEST(ImageProcessorConfig, RefusesByNameWhatWouldChangeThePixels) {
  const std::vector<std::pair<std::string, nlohmann::json>> refused = {
      {"resample", 2},
      {"do_resize", false},
      {"do_convert_rgb", false},
      {"do_center_crop", true},
      {"do_pad", true},
      {"crop_size", {{"height", 224}}},
      {"image_processor_type", "CLIPImageProcessor"},
      {"data_format", "channels_last"},
      {"image_mean", {0.5, 0.5}},
      {"image_std", {0.5, 0.0, 0.5}},
      {"patch_size", 0},
      {"patch_size", "16"},
      {"max_pixels", 1},
      {"size", {{"height", 224}, {"width", 224}}},
      {"size", {{"shortest_edge", 10}, {"longest_edge", 5}}},
      {"tile_size", 4},
  };
  for (const auto& [key, value] : refused) {
    const std::string error = config_error({{key, value}});
    EXPECT_THAT(error, HasSubstr(key == "max_pixels" ? "longest_edge" : key)) << key << " = " << value;
  }
}

TEST(ImageProcessorConfig, TakesKeysWithoutConsequence) {
  EXPECT_EQ(config_error(nlohmann::json::object()), "");
  const nlohmann::json config = {
      {"resample", 3}, {"crop_size", nullptr}, {"do_center_crop", nullptr}, {"processor_class", "Qwen3VLProcessor"}};
  EXPECT_EQ(config_error(config), "");
}

TEST(ImageProcessorConfig, LeavesOutTheStepsThatAreSwitchedOff) {
  RgbImage image({32, 32});
  std::fill(image.pixels.begin(), image.pixels.end(), uint8_t{51});
  ImageProcessorConfig config;
  config.patch_size = 16;
  config.min_pixels = 1;
  config.normalizes = false;
  EXPECT_FLOAT_EQ(make_image_patches(image, config, "image").pixels[0], 0.2f);
  config.rescales = false;
  EXPECT_EQ(make_image_patches(image, config, "image").pixels[0], 51.0f);
  config.normalizes = true;
  config.mean[0] = 1.0;
  config.std[0] = 2.0;
  EXPECT_EQ(make_image_patches(image, config, "image").pixels[0], 25.0f);
}

}  // namespace
}  // namespace skipper

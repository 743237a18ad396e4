#include "processor/image_processor.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "processor/bicubic_resize.h"

namespace skipper {
namespace {

constexpr int64_t kChannels = 3;
constexpr double kMaxAspectRatio = 200.0;

// Half to even, as Python rounds.
int64_t nearest_multiple(int64_t side, int64_t factor) {
  return std::llrint(static_cast<double>(side) / static_cast<double>(factor)) * factor;
}

ImageSize shrunk(ImageSize size, const ImageProcessorConfig& config) {
  const auto factor = static_cast<double>(config.side_factor());
  const double shrink = std::sqrt(static_cast<double>(size.num_pixels()) / static_cast<double>(config.max_pixels));
  const auto side = [&](int64_t pixels) {
    const auto num_factors = static_cast<int64_t>(std::floor(static_cast<double>(pixels) / shrink / factor));
    return std::max<int64_t>(1, num_factors) * config.side_factor();
  };
  return {side(size.height), side(size.width)};
}

ImageSize grown(ImageSize size, const ImageProcessorConfig& config) {
  const auto factor = static_cast<double>(config.side_factor());
  const double growth = std::sqrt(static_cast<double>(config.min_pixels) / static_cast<double>(size.num_pixels()));
  const auto side = [&](int64_t pixels) {
    return static_cast<int64_t>(std::ceil(static_cast<double>(pixels) * growth / factor)) * config.side_factor();
  };
  return {side(size.height), side(size.width)};
}

// The 256 values a channel's byte can become, in the FP32 steps of transformers: with both factors on, the rescaling is folded
// into mean and deviation.
std::array<float, 256> channel_values(const ImageProcessorConfig& config, size_t channel) {
  auto mean = static_cast<float>(config.mean[channel]);
  auto deviation = static_cast<float>(config.std[channel]);
  if (config.rescales) {
    mean *= static_cast<float>(1.0 / config.rescale_factor);
    deviation *= static_cast<float>(1.0 / config.rescale_factor);
  }
  std::array<float, 256> values = {};
  for (size_t byte = 0; byte < values.size(); ++byte) {
    const auto value = static_cast<float>(byte);
    const float rescaled = config.rescales ? value * static_cast<float>(config.rescale_factor) : value;
    values[byte] = config.normalizes ? (value - mean) / deviation : rescaled;
  }
  return values;
}

struct PatchPosition {
  int64_t row = 0;
  int64_t column = 0;
};

// Cuts one image into patches; [channel, temporal, patch, patch] within each.
class PatchCutter {
 public:
  PatchCutter(const RgbImage& image, const ImageProcessorConfig& config)
      : image_(image),
        config_(config),
        values_{channel_values(config, 0), channel_values(config, 1), channel_values(config, 2)} {}

  int64_t patch_elements() const { return kChannels * config_.temporal_patch_size * config_.patch_size * config_.patch_size; }

  // A still image fills every frame of the temporal patch.
  void cut(PatchPosition patch, float* out) const {
    for (int64_t channel = 0; channel < kChannels; ++channel) {
      for (int64_t frame = 0; frame < config_.temporal_patch_size; ++frame) out = cut_channel(patch, channel, out);
    }
  }

 private:
  float* cut_channel(PatchPosition patch, int64_t channel, float* out) const {
    const std::array<float, 256>& values = values_[static_cast<size_t>(channel)];
    for (int64_t y = 0; y < config_.patch_size; ++y) {
      const uint8_t* row = image_.row(patch.row * config_.patch_size + y);
      const uint8_t* pixel = row + patch.column * config_.patch_size * kChannels + channel;
      for (int64_t x = 0; x < config_.patch_size; ++x) *out++ = values[pixel[x * kChannels]];
    }
    return out;
  }

  const RgbImage& image_;
  const ImageProcessorConfig& config_;
  std::array<std::array<float, 256>, 3> values_;
};

// Row by row of merge × merge blocks, and row by row within a block, so that the patches merged into one token are neighbours.
std::vector<PatchPosition> patch_order(int64_t grid_h, int64_t grid_w, int64_t merge) {
  std::vector<PatchPosition> order;
  for (int64_t block_row = 0; block_row < grid_h; block_row += merge) {
    for (int64_t block_column = 0; block_column < grid_w; block_column += merge) {
      for (int64_t i = 0; i < merge * merge; ++i) order.push_back({block_row + i / merge, block_column + i % merge});
    }
  }
  return order;
}

}  // namespace

ImageSize resized_size(ImageSize size, const ImageProcessorConfig& config, const std::string& param) {
  const auto [shorter, longer] = std::minmax(size.height, size.width);
  if (static_cast<double>(longer) / static_cast<double>(shorter) > kMaxAspectRatio) {
    throw InvalidRequest("image is " + std::to_string(size.width) + " x " + std::to_string(size.height) +
                             " pixels; its longer side may be at most 200 times the shorter",
                         param);
  }
  const int64_t factor = config.side_factor();
  const ImageSize nearest = {nearest_multiple(size.height, factor), nearest_multiple(size.width, factor)};
  if (nearest.num_pixels() > config.max_pixels) return shrunk(size, config);
  if (nearest.num_pixels() < config.min_pixels) return grown(size, config);
  return nearest;
}

int64_t num_image_tokens(ImageSize size, const ImageProcessorConfig& config, const std::string& param) {
  return resized_size(size, config, param).num_pixels() / (config.side_factor() * config.side_factor());
}

ImagePatches make_image_patches(RgbImage image, const ImageProcessorConfig& config, const std::string& param) {
  const ImageSize size = resized_size(image.size, config, param);
  const RgbImage resized = resize_bicubic(std::move(image), size);
  const PatchCutter cutter(resized, config);

  ImagePatches patches;
  patches.grid_h = size.height / config.patch_size;
  patches.grid_w = size.width / config.patch_size;
  patches.pixels.resize(static_cast<size_t>(patches.num_patches() * cutter.patch_elements()));
  float* out = patches.pixels.data();
  for (const PatchPosition patch : patch_order(patches.grid_h, patches.grid_w, config.merge_size)) {
    cutter.cut(patch, out);
    out += cutter.patch_elements();
  }
  return patches;
}

}  // namespace skipper

#include "model/vision_positions.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

namespace skipper {
namespace {

struct PatchPlace {
  int64_t patch;
  int64_t row;
  int64_t column;
};

// Visits the patches in storage order: frames, merge blocks row by row, and within a block its rows.
void for_each_patch(const ImagePatches& image, int64_t merge, const std::function<void(const PatchPlace&)>& visit) {
  const int64_t blocks_across = image.grid_w / merge;
  const int64_t patches_per_frame = image.grid_h * image.grid_w;
  for (int64_t patch = 0; patch < image.num_patches(); ++patch) {
    const int64_t in_frame = patch % patches_per_frame;
    const int64_t in_block = in_frame % (merge * merge);
    const int64_t block = in_frame / (merge * merge);
    visit({patch, block / blocks_across * merge + in_block / merge, block % blocks_across * merge + in_block % merge});
  }
}

// Two neighbouring cells of one axis of the table and how much each counts.
struct AxisMix {
  int64_t low;
  int64_t high;
  float low_weight;
  float high_weight;
};

AxisMix mix_along_axis(int64_t index, int64_t num_patches, int64_t side) {
  const float position = static_cast<float>(index) * static_cast<float>(side - 1) /
                         static_cast<float>(std::max<int64_t>(num_patches - 1, 1));
  const auto low = static_cast<int64_t>(std::floor(position));
  const float fraction = position - std::floor(position);
  return {low, std::min(low + 1, side - 1), 1.0f - fraction, fraction};
}

// Cells in reading order: upper left, upper right, lower left, lower right.
struct CellMix {
  std::array<int64_t, 4> cells;
  std::array<float, 4> weights;
};

CellMix mix_of(const PatchPlace& place, const ImagePatches& image, int64_t side) {
  const AxisMix y = mix_along_axis(place.row, image.grid_h, side);
  const AxisMix x = mix_along_axis(place.column, image.grid_w, side);
  return {{y.low * side + x.low, y.low * side + x.high, y.high * side + x.low, y.high * side + x.high},
          {y.low_weight * x.low_weight, y.low_weight * x.high_weight, y.high_weight * x.low_weight,
           y.high_weight * x.high_weight}};
}

}  // namespace

void interpolated_positions(const ImagePatches& image, const VisionConfig& config, const Tensor& table, Tensor& out) {
  for_each_patch(image, config.spatial_merge_size, [&](const PatchPlace& place) {
    const auto [cells, weights] = mix_of(place, image, config.position_grid);
    const float* low_low = table.row<float>(cells[0]);
    const float* low_high = table.row<float>(cells[1]);
    const float* high_low = table.row<float>(cells[2]);
    const float* high_high = table.row<float>(cells[3]);
    float* mixed = out.row<float>(place.patch);
    for (int64_t i = 0; i < config.hidden_size; ++i) {
      mixed[i] = weights[0] * low_low[i] + weights[1] * low_high[i] + weights[2] * high_low[i] + weights[3] * high_high[i];
    }
  });
}

void position_mix(const ImagePatches& image, const VisionConfig& config, Tensor& cells, Tensor& weights) {
  for_each_patch(image, config.spatial_merge_size, [&](const PatchPlace& place) {
    const CellMix mix = mix_of(place, image, config.position_grid);
    std::copy(mix.cells.begin(), mix.cells.end(), cells.row<int32_t>(place.patch));
    std::copy(mix.weights.begin(), mix.weights.end(), weights.row<float>(place.patch));
  });
}

std::vector<float> vision_rotary_frequencies(const VisionConfig& config) {
  const int64_t per_axis = config.head_dim() / 4;
  std::vector<float> frequencies;
  for (int64_t i = 0; i < per_axis; ++i) {
    const double exponent = static_cast<double>(i) / static_cast<double>(per_axis);
    frequencies.push_back(static_cast<float>(1.0 / std::pow(config.rope_theta, exponent)));
  }
  return frequencies;
}

void patch_places(const ImagePatches& image, const VisionConfig& config, Tensor& places) {
  for_each_patch(image, config.spatial_merge_size, [&](const PatchPlace& place) {
    int32_t* row = places.row<int32_t>(place.patch);
    row[0] = 0;
    row[1] = static_cast<int32_t>(place.row);
    row[2] = static_cast<int32_t>(place.column);
  });
}

void vision_rotary_angles(const ImagePatches& image, const VisionConfig& config, Tensor& angles) {
  const std::vector<float> frequencies = vision_rotary_frequencies(config);
  for_each_patch(image, config.spatial_merge_size, [&](const PatchPlace& place) {
    float* angle = angles.row<float>(place.patch);
    for (size_t i = 0; i < frequencies.size(); ++i) {
      angle[i] = static_cast<float>(place.row) * frequencies[i];
      angle[i + frequencies.size()] = static_cast<float>(place.column) * frequencies[i];
    }
  });
}

}  // namespace skipper

// Where each patch of an image lies: learned position embeddings resampled to its grid, and 2-D rotary angles.
#pragma once

#include <vector>

#include "model/image_patches.h"
#include "model/vision_config.h"
#include "tensor/tensor.h"

namespace skipper {

// The learned table covers position_grid × position_grid cells; an image's corners are the table's corners, and a patch in
// between takes the bilinear mix of its four neighbours. Patches in the order of ImagePatches (merge blocks), frames alike.
// table [grid · grid, Hv] f32 · out [patches, Hv] f32
void interpolated_positions(const ImagePatches& image, const VisionConfig& config, const Tensor& table, Tensor& out);

// The same before it is summed: the four rows of the table that each patch mixes, and how much each counts.
// cells [patches, 4] i32 · weights [patches, 4] f32
void position_mix(const ImagePatches& image, const VisionConfig& config, Tensor& cells, Tensor& weights);

// The first half of a head's angles turns with the row, the second half with the column.
// angles [patches, head_dim / 2] f32, radians
void vision_rotary_angles(const ImagePatches& image, const VisionConfig& config, Tensor& angles);

// What the angles are made of. Frequencies of one axis, head_dim / 4 of them; rows (0, row, column) of [patches, 3] i32.
std::vector<float> vision_rotary_frequencies(const VisionConfig& config);
void patch_places(const ImagePatches& image, const VisionConfig& config, Tensor& places);

}  // namespace skipper

// Where each patch of an image lies: learned position embeddings resampled to its grid, and 2-D rotary angles.
#pragma once

#include "model/image_patches.h"
#include "model/vision_config.h"
#include "tensor/tensor.h"

namespace skipper {

// The learned table covers position_grid × position_grid cells; an image's corners are the table's corners, and a patch in
// between takes the bilinear mix of its four neighbours. Patches in the order of ImagePatches (merge blocks), frames alike.
// table [grid · grid, Hv] f32 · out [patches, Hv] f32
void interpolated_positions(const ImagePatches& image, const VisionConfig& config, const Tensor& table, Tensor& out);

// The first half of a head's angles turns with the row, the second half with the column.
// angles [patches, head_dim / 2] f32, radians
void vision_rotary_angles(const ImagePatches& image, const VisionConfig& config, Tensor& angles);

}  // namespace skipper

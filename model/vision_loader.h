// The vision tower's half of weight_loader.h.
#pragma once

#include "model/checkpoint_reader.h"
#include "model/model_config.h"
#include "model/model_weights.h"

namespace skipper {

// Of a model that has a tower. Throws InvalidFile naming the tensor.
VisionWeights load_vision_weights(const ModelConfig& config, const PackingFormat& packing, CheckpointReader& reader);

}  // namespace skipper

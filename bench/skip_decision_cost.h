// What the decision over pairs costs the routing kernel, thresholds against none.
#pragma once

#include <cstdint>

#include "cluster/operating_point.h"
#include "model/model_config.h"
#include "tensor/device_runtime.h"

namespace skipper::cuda {

// Time of route_tokens() for one layer of `num_tokens` random rows at a level of the table, on the GPU's clock.
double routing_seconds(const ModelConfig& model, const LevelTable& levels, uint8_t level, int64_t num_tokens, Stream& stream);

}  // namespace skipper::cuda

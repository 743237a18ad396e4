// The model on the CPU, with the weights where the loaders left them.
#pragma once

#include <memory>

#include "model/model_backend.h"
#include "model/model_weights.h"
#include "model/multimodal_model.h"

namespace skipper {

std::unique_ptr<ModelBackend> make_cpu_model(const ModelParts& parts, ModelWeights weights, const ParallelContext& parallel);

}  // namespace skipper

// The model on a GPU: weights copied from the host, then nothing but the batch and its result crosses the bus.
#pragma once

#include <memory>

#include "base/thread_pool.h"
#include "model/model_backend.h"
#include "model/model_weights.h"
#include "model/multimodal_model.h"

namespace skipper::cuda {

// Before loading takes its time: throws InvalidRequest naming a format that GPUs do not multiply with.
void check_device_formats(const ModelConfig& config, const WeightConfig& formats, const ExpertStore& store);

// Throws DeviceError naming bytes and what to do when dense weights and experts alone take more than the GPU has free.
void check_device_memory(const ModelConfig& config, const WeightConfig& formats, const ExpertTierBytes& experts, Device device);

// On parallel.device. The host's copies of the weights go while it is made, those of `parts.store` included but for experts that
// the host computes; `workers` share the packing and compute those, and outlive the model. Throws InvalidRequest for a shape or
// format that the kernels do not take, DeviceError without memory.
std::unique_ptr<ModelBackend> make_device_model(const ModelParts& parts, ModelWeights weights, const ParallelContext& parallel,
                                                ThreadPool& workers);

}  // namespace skipper::cuda

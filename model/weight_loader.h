// From tensor names of a checkpoint to the weights of a rank: everything dense, and the experts it owns.
#pragma once

#include <cstddef>

#include "expert_parallel/expert_placement.h"
#include "experts/expert_store.h"
#include "model/model_config.h"
#include "model/model_weights.h"
#include "tensor/safetensors.h"

namespace skipper {

struct DenseWeights {
  ModelWeights weights;
  size_t mapped_bytes = 0;  // bytes of the weights that are views of the checkpoint's mapping
};

// BF16 and F32 tensors are views of the mapping, which must outlive them, and their pages are read in now rather than by the
// first request. F16 tensors are converted to F32, gate and up of dense layers are joined: those are copies. Throws
// InvalidFile naming the tensor.
DenseWeights load_dense_weights(const Checkpoint& checkpoint, const ModelConfig& config);

// Copies the experts that `store` has room for and then freezes it; reads no page of any other expert. Types other than BF16
// are rounded to it. At the end no page of any expert tensor is left mapped: each weight is held once. Throws InvalidFile
// naming the tensor.
struct ExpertLoad {
  const Checkpoint& checkpoint;
  const ModelConfig& config;
  const ExpertPlacement& placement;
  int rank = 0;
};
void load_experts(const ExpertLoad& load, ExpertStore& store);

}  // namespace skipper

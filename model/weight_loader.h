// From tensor names of a checkpoint to the weights of a rank: everything dense, and the experts it owns.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "expert_parallel/expert_placement.h"
#include "experts/expert_store.h"
#include "model/expert_assignment.h"
#include "model/load_queue.h"
#include "model/model_config.h"
#include "model/model_weights.h"
#include "model/weight_config.h"
#include "tensor/safetensors.h"

namespace skipper {

// What all weights of a model are loaded by. References outlive the load.
struct WeightSource {
  const Checkpoint& checkpoint;
  const ModelConfig& config;
  const WeightConfig& formats;
};

// Refuses formats that the checkpoint's own forbid: one that is quantised already is loaded as it is. Throws InvalidRequest
// naming the setting and both formats.
void check_formats(const ModelConfig& config, const WeightConfig& formats);
void check_formats(const ModelConfig& config, const ExpertAssignment& assignment, int rank);

// The dense weights; `queue` fills their matrices, which until then are uninitialised. The embedding table stays mapped, for
// its rows are read one by one, and so do the matrices of a quantised checkpoint where the formats say so. Throws InvalidFile
// naming the tensor, now or from the queue.
struct DenseWeights {
  ModelWeights weights;
  size_t packed_bytes = 0;  // of all matrices
  size_t mapped_bytes = 0;  // of those used in place
};
DenseWeights load_dense_weights(const WeightSource& source, LoadQueue& queue);

// Where the experts of a rank rest, and in which formats.
ExpertStoreConfig expert_store_config(const WeightSource& source, const ExpertPlacement& placement, int rank);
// The same where each expert has a format of its own.
ExpertStoreConfig expert_store_config(const WeightSource& source, const ExpertAssignment& assignment, int rank);

// Makes `queue` fill `store`, made by expert_store_config(); reads no byte of any other expert. Throws InvalidFile naming the
// tensor, now or from the queue.
void load_experts(const WeightSource& source, ExpertStore& store, LoadQueue& queue);

// The experts of `slots`, [MoE layer][slot], in memory of a store of their own, loaded and frozen.
ExpertStore load_expert_store(const WeightSource& source, std::vector<std::vector<ExpertSlot>> slots, ThreadPool& workers,
                              ExpertMemory memory = ExpertMemory::kPerLayer);

// Experts of one layer alone in a store of their own, loaded and frozen: to look at them, or to take the place of others.
ExpertStore load_expert_layer(const WeightSource& source, int moe_layer, std::span<const ExpertSlot> slots, ThreadPool& workers);

// After the queue has run, for each weight to be held once: gives the pages of the mapping back that are not used in place, but
// reads in those of the embedding now rather than in the first request. Returns the embedding's bytes where it stays mapped.
size_t settle_mapping(const WeightSource& source, const Tensor& embedding);

}  // namespace skipper

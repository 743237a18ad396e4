// Where each expert of the model lives and in which format, decided before loading: what a plan says to the loader.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "expert_parallel/expert_placement.h"
#include "kernels/weight_format.h"
#include "model/expert_tiers.h"

namespace skipper {

struct AssignedExpert {
  WeightFormat format;
  GpuExpertTier tier = GpuExpertTier::kDevice;  // on a GPU
  std::string hash = {};                        // of its matrices, see model/expert_hash.h; empty: unknown
  ExpertTier rest = ExpertTier::kHost;          // of those that a CPU computes: kHost, or kDisk
};

struct ExpertAssignment {
  ExpertPlacement placement;                       // of all experts, the same on every rank
  std::vector<std::vector<AssignedExpert>> slots;  // of this rank: [MoE layer][slot]
  ExpertMemory memory = ExpertMemory::kPerLayer;   // that they take

  // The experts of this rank and their formats, in memory, to be loaded.
  std::vector<std::vector<ExpertSlot>> slots_of_rank(int rank) const {
    std::vector<std::vector<ExpertSlot>> result;
    for (int layer = 0; layer < static_cast<int>(slots.size()); ++layer) {
      std::vector<ExpertSlot>& experts = result.emplace_back();
      for (const int32_t expert : placement.experts_of(rank, layer)) {
        experts.push_back({.expert = expert, .format = at(layer, experts.size()).format});
      }
    }
    return result;
  }
  const AssignedExpert& at(int layer, size_t slot) const { return slots[static_cast<size_t>(layer)][slot]; }
  // The tiers of this rank's slots. No staging: the memory of GPUs is the plan's to give away.
  ExpertTiers gpu_tiers() const {
    ExpertTiers result;
    for (const std::vector<AssignedExpert>& layer : slots) {
      std::vector<GpuExpertTier>& tiers = result.tiers.emplace_back();
      for (const AssignedExpert& expert : layer) tiers.push_back(expert.tier);
    }
    return result;
  }
};

}  // namespace skipper

// Reads the reference experts of a rank, from the checkpoint that is served or from the one that it was quantised from.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "experts/expert_store.h"
#include "guard/guard_config.h"
#include "guard/reference_experts.h"
#include "model/model_config.h"
#include "model/weight_config.h"

namespace skipper {

// Host memory that the reference of these experts takes.
size_t reference_bytes(const GuardConfig& config, const ExpertStore& served);

// Where the reference comes from; what it is made of outlives it.
class ReferenceLoader {
 public:
  // Of the model in `directory`. Throws InvalidFile for a guard.reference_model that is not what is served, unrounded, and when a
  // quantised checkpoint is served and there is none.
  ReferenceLoader(const GuardConfig& config, const std::filesystem::path& directory, const ModelConfig& served,
                  const WeightConfig& formats);

  // For the experts of this store, frozen, which are watched from the start.
  std::unique_ptr<ReferenceExperts> load(const ExpertStore& served, ThreadPool& workers) const;

  // What the formats of slots[MoE layer] cost, of those that `known` does not know; a few experts are read one after the other.
  KnownErrors measure(const std::vector<std::vector<ExpertSlot>>& slots, const ReferenceExperts& known) const;

 private:
  GuardConfig config_;
  std::filesystem::path directory_;
  ModelConfig model_;
  const WeightConfig& formats_;
};

}  // namespace skipper

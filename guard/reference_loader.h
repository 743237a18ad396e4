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

// What a rank serves, that its reference experts are loaded for.
struct WatchedModel {
  std::filesystem::path directory;
  const ModelConfig& config;
  const WeightConfig& formats;
  const ExpertStore& experts;  // frozen
};

// Host memory that the reference of these experts takes.
size_t reference_bytes(const GuardConfig& config, const ExpertStore& served);
// The slots of all layers.
std::vector<std::vector<ExpertSlot>> all_slots(const ExpertStore& store);

// Throws InvalidFile for a guard.reference_model that is not what is served, unrounded, and when a quantised checkpoint is served
// and there is none.
std::unique_ptr<ReferenceExperts> load_reference_experts(const GuardConfig& config, const WatchedModel& watched,
                                                         ThreadPool& workers);

}  // namespace skipper

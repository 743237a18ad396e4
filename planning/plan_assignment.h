// From a plan to what a rank loads, and from loaded weights to the hashes of a plan.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "base/thread_pool.h"
#include "model/expert_assignment.h"
#include "model/model_config.h"
#include "planning/expert_plan.h"
#include "tensor/tensor.h"

namespace skipper {

// Whether a rank serves the copies that a plan puts on its disk.
enum class DiskUse : uint8_t { kRefused, kServed };

// What `rank` owns, and where the experts of all ranks are. Throws InvalidFile, beginning with `where`, for what cannot be
// served: several copies of an expert, copies on disk where they are refused or a GPU computes, and copies of this rank that a
// device of this kind does not hold.
ExpertAssignment assignment_of(const ExpertPlan& plan, int rank, DeviceKind kind, const std::string& where,
                               DiskUse disk = DiskUse::kRefused);

// Fills in the hash of every copy: loads the experts of `checkpoint` layer by layer in the formats of the plan. `progress` sees
// each finished layer and may throw to end the work. Throws InvalidFile for weights that cannot be loaded so.
void add_hashes(ExpertPlan& plan, const std::filesystem::path& checkpoint, const ModelConfig& config, ThreadPool& workers,
                const std::function<void(size_t done, size_t total)>& progress);

}  // namespace skipper

// The plan that a group serves by: read, and held against the settings of its ranks.
#pragma once

#include <filesystem>
#include <string>

#include "configs/server_config.h"
#include "model/expert_assignment.h"
#include "model/model_config.h"
#include "tensor/device.h"

namespace skipper {

struct ServedPlan {
  ExpertAssignment assignment;  // of this rank
  std::string text;             // the same on every rank
};

// One of the ranks that read a plan.
struct PlanReader {
  const ModelConfig& model;
  int rank = 0;
  int world_size = 1;
  DeviceKind device = DeviceKind::kHost;
};

// Throws InvalidFile for a plan that is malformed, of another model or number of ranks, or holds what this rank cannot serve, and
// Error naming a setting that decides what the plan has decided, or takes memory that it has not.
ServedPlan load_served_plan(const std::filesystem::path& path, const PlanReader& reader, ServerConfig& config);

}  // namespace skipper

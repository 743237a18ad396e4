// The plan that a group serves by: read, and held against the settings of its ranks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "cluster/switch_state.h"
#include "configs/server_config.h"
#include "model/disk_config.h"
#include "model/expert_assignment.h"
#include "model/model_config.h"
#include "planning/expert_plan.h"
#include "tensor/device.h"

namespace skipper {

struct ServedPlan {
  ExpertAssignment assignment;  // of this rank
  std::string text;             // the same on every rank
  PolicyTraits traits = {};     // without a name
  size_t expert_room = 0;       // of this rank's host memory, for all experts that serve
  size_t reference_room = 0;    // of this rank's host memory, for the experts that a guard compares with
  std::optional<DiskConfig> disk = {};  // where this rank may keep experts
  std::optional<std::string> profiled_point = {};  // level that the plan's profile was measured at, where that is known
};

// Serving takes the buffers of the settings; scoring, which reads the logits of every token, those that the plan has room for.
enum class PlanUse : uint8_t { kServing, kScoring };

// One of the ranks that read a plan.
struct PlanReader {
  const ModelConfig& model;
  int rank = 0;
  int world_size = 1;
  DeviceKind device = DeviceKind::kHost;
  std::filesystem::path disk = {};  // directory for experts that the plan puts on disk; empty: there is none
  std::filesystem::path checkpoint = {};  // directory of the model
  PlanUse use = PlanUse::kServing;
};

// The plans that a reader takes.
PlanSubject subject_of(const PlanReader& reader);

// Without a name.
PolicyTraits traits_of(const ExpertPlan& plan);

// Throws InvalidFile for a plan that is malformed, of another model or number of ranks, or holds what this rank cannot serve, and
// Error naming a setting that decides what the plan has decided, or takes memory that it has not.
ServedPlan load_served_plan(const std::filesystem::path& path, const PlanReader& reader, ServerConfig& config);

// The same of a plan that rank 0 has made and sent as text.
ServedPlan read_served_plan(const std::string& text, const PlanReader& reader, ServerConfig& config);

}  // namespace skipper

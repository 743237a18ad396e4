// All settings of a server in one struct: loads a JSON file, applies defaults, validates, and prints the effective values.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "cluster/cluster_config.h"
#include "comm/comm_config.h"
#include "engine/cpu_config.h"
#include "engine/engine_config.h"
#include "engine/gpu_config.h"
#include "engine/skip_gate_config.h"
#include "expert_parallel/dispatch_config.h"
#include "frontend/frontend_config.h"
#include "guard/guard_config.h"
#include "model/weight_config.h"
#include "processor/image_limits.h"
#include "residency/residency_config.h"
#include "tensor/dtype.h"

namespace skipper {

// A plan that a server can be switched to.
struct PolicyFile {
  std::string name;
  std::filesystem::path plan;
};

// "policies": {"plans": [{"name": "quality", "plan": "quality.json"}, ...], "first": "quality"}, the best first.
struct PolicyConfig {
  std::vector<PolicyFile> plans;
  std::string first;  // that serves at start; empty: the first
};

struct ServerConfig {
  EngineConfig engine;
  CpuConfig cpu;
  GpuConfig gpu;
  CommConfig comm;
  ClusterConfig cluster;
  DispatchConfig dispatch;
  SkipGateConfig skipping;
  GuardConfig guard;
  FrontendConfig frontend;
  ImageLimits images;
  WeightConfig weights;
  ResidencyConfig residency;
  DType kv_dtype = DType::kBF16;               // "kv_cache.dtype": bf16 or f32
  std::map<std::string, int64_t> service_tiers;  // request field service_tier → level; "gold" is always level 0
  std::map<std::string, std::string> tier_policies;  // tier → the lowest policy under which its requests run
  PolicyConfig policies;

  void validate() const;
};

// Sections engine, cpu, gpu, comm, cluster, dispatch, skipping, guard, frontend, images, weights, residency, kv_cache,
// service_tiers, policies; each key is optional, an unknown one is refused with the nearest known name. An empty path gives the
// defaults. Throws InvalidFile.
ServerConfig load_server_config(const std::filesystem::path& path);

// Every effective value as one line of JSON, for the log.
std::string describe(const ServerConfig& config);

}  // namespace skipper

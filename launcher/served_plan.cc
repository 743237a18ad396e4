#include "launcher/served_plan.h"

#include "base/error.h"
#include "planning/expert_plan.h"
#include "planning/plan_assignment.h"

namespace skipper {
namespace {

void refuse_decided_settings(const ServerConfig& config) {
  if (config.weights.experts) {
    throw Error("weights.experts: " + name_of(*config.weights.experts) +
                " is one format for all experts, but --plan gives each its own; leave one of them out");
  }
  if (config.gpu.device_expert_mb < 0) return;
  throw Error("gpu.device_expert_mb: " + std::to_string(config.gpu.device_expert_mb) +
              " chooses the experts that rest on the GPU, but --plan has chosen them; leave one of them out");
}

// The KV cache that the plan left room for is the most there may be; one sized by what is free becomes that of the plan.
void fit_kv_cache(const ExpertPlan& plan, const std::string& where, EngineConfig& engine) {
  const int64_t planned = plan.origin.kv_tokens_per_rank;
  if (planned == 0) return;
  if (engine.kv_blocks_per_rank == 0) engine.kv_blocks_per_rank = planned / engine.kv_block_size;
  if (engine.kv_tokens_per_rank() <= planned) return;
  throw Error("engine.kv_blocks_per_rank: the KV cache of " + std::to_string(engine.kv_tokens_per_rank()) +
              " tokens is larger than that of " + std::to_string(planned) + " tokens that " + where +
              " has room for; lower it, or run 'skipper plan' with these settings");
}

}  // namespace

ServedPlan load_served_plan(const std::filesystem::path& path, const PlanReader& reader, ServerConfig& config) {
  refuse_decided_settings(config);
  const ExpertPlan plan = load_expert_plan(path, {.model_fingerprint = reader.model.fingerprint,
                                                  .num_moe_layers = reader.model.num_moe_layers(),
                                                  .num_experts = static_cast<int>(reader.model.moe.num_experts),
                                                  .world_size = reader.world_size});
  fit_kv_cache(plan, path.string(), config.engine);
  return {assignment_of(plan, reader.rank, reader.device, path.string()), to_json(plan)};
}

}  // namespace skipper

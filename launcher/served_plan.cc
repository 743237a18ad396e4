#include "launcher/served_plan.h"

#include <glog/logging.h>

#include <map>
#include <utility>

#include "base/error.h"
#include "launcher/scoring_rows.h"
#include "planning/expert_plan.h"
#include "planning/plan_assignment.h"
#include "planning/plan_request.h"

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

void fit_scoring(const ExpertPlan& plan, const std::string& where, const PlanReader& reader, ServerConfig& config) {
  const ComputePlace place = reader.device == DeviceKind::kHost ? ComputePlace::kHost : ComputePlace::kDevice;
  const int64_t wanted = config.engine.max_logit_rows;
  fit_logit_rows(plan, where, {reader.checkpoint, reader.model, reader.world_size, place}, config);
  if (config.engine.max_logit_rows == wanted || reader.rank != 0) return;
  LOG(WARNING) << where << " has room for the logits of " << config.engine.max_logit_rows << " tokens a step, not of " << wanted
               << ": scoring takes more steps, with the same results; for larger ones plan with engine.max_logit_rows " << wanted;
}

// Without a size in the settings: what the plan set aside, and what it left over.
size_t cache_bytes(const ExpertPlan& plan, const PlanReader& reader, const ServerConfig& config) {
  constexpr size_t kMegabyte = 1'000'000;
  if (config.residency.cache_mb > 0) return static_cast<size_t>(config.residency.cache_mb) * kMegabyte;
  const TierBudget& host = plan.ranks.at(static_cast<size_t>(reader.rank)).tiers.at(MemoryTier::kHost);
  return expert_cache_bytes(reader.model, ComputePlace::kHost) + host.budget_bytes - host.use.total_bytes();
}

// What was set aside, and what else is left over, unless it is a cache's.
size_t reference_room(const ExpertPlan& plan, const PlanReader& reader) {
  const std::map<MemoryTier, TierBudget>& tiers = plan.ranks.at(static_cast<size_t>(reader.rank)).tiers;
  const auto host = tiers.find(MemoryTier::kHost);
  if (host == tiers.end()) return 0;
  const MemoryUse& use = host->second.use;
  return use.reference_experts + (reader.disk.empty() ? host->second.budget_bytes - use.total_bytes() : 0);
}

size_t expert_room(const ExpertPlan& plan, const PlanReader& reader) {
  const std::map<MemoryTier, TierBudget>& tiers = plan.ranks.at(static_cast<size_t>(reader.rank)).tiers;
  const auto host = tiers.find(MemoryTier::kHost);
  return host == tiers.end() ? 0 : host->second.budget_bytes - host->second.use.fixed_bytes();
}

ServedPlan serve(const ExpertPlan& plan, const std::string& where, const PlanReader& reader, ServerConfig& config) {
  fit_kv_cache(plan, where, config.engine);
  if (reader.use == PlanUse::kScoring) fit_scoring(plan, where, reader, config);
  const DiskUse disk_use = reader.disk.empty() ? DiskUse::kRefused : DiskUse::kServed;
  ServedPlan served{.assignment = assignment_of(plan, reader.rank, reader.device, where, disk_use),
                    .text = to_json(plan),
                    .traits = traits_of(plan),
                    .expert_room = expert_room(plan, reader),
                    .reference_room = reference_room(plan, reader)};
  served.profiled_point = plan.origin.operating_point;
  if (disk_use == DiskUse::kServed && reader.device == DeviceKind::kHost) {
    served.disk = {reader.disk, cache_bytes(plan, reader, config), config.residency};
  }
  return served;
}

}  // namespace

PlanSubject subject_of(const PlanReader& reader) {
  return {.model_fingerprint = reader.model.fingerprint,
          .num_moe_layers = reader.model.num_moe_layers(),
          .num_experts = static_cast<int>(reader.model.moe.num_experts),
          .world_size = reader.world_size};
}

PolicyTraits traits_of(const ExpertPlan& plan) {
  return {.name = "", .expert_bits = plan.predicted.expert_bits, .loss = plan.predicted.loss, .profile = plan.origin.profile};
}

ServedPlan load_served_plan(const std::filesystem::path& path, const PlanReader& reader, ServerConfig& config) {
  refuse_decided_settings(config);
  return serve(load_expert_plan(path, subject_of(reader)), path.string(), reader, config);
}

ServedPlan read_served_plan(const std::string& text, const PlanReader& reader, ServerConfig& config) {
  refuse_decided_settings(config);
  const std::string where = "the plan of rank 0";
  return serve(parse_expert_plan(text, where, subject_of(reader)), where, reader, config);
}

}  // namespace skipper

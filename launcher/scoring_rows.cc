#include "launcher/scoring_rows.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "planning/memory_size.h"
#include "planning/plan_request.h"
#include "planning/rank_memory.h"

namespace skipper {
namespace {

// Step buffers that a plan has no room for.
struct BufferShortage {
  int rank = 0;
  size_t num_bytes = 0;
  size_t room = 0;
};

MemoryTier main_tier(ComputePlace place) { return place == ComputePlace::kDevice ? MemoryTier::kDevice : MemoryTier::kHost; }

size_t buffer_bytes(const PlannedGroup& group, MemoryTier tier, const RankSettings& settings) {
  if (tier == MemoryTier::kDevice) return device_memory_without_experts(group.model, settings).buffers;
  return group.place == ComputePlace::kDevice ? host_memory_beside_device(group.model, settings).buffers
                                              : host_memory_without_experts(group.model, settings).buffers;
}

// What the plan set aside for them, and what it left over, unless that is a cache's of experts on disk.
size_t room_for_buffers(const PlannedGroup& group, const RankPlanMemory& rank, MemoryTier tier) {
  const TierBudget& budget = rank.tiers.at(tier);
  const bool has_cache = rank.tiers.contains(MemoryTier::kDisk) && tier == main_tier(group.place);
  if (has_cache) return budget.use.buffers - std::min(budget.use.buffers, expert_cache_bytes(group.model, group.place));
  return budget.use.buffers + budget.budget_bytes - budget.use.total_bytes();
}

std::optional<BufferShortage> find_shortage(const ExpertPlan& plan, const PlannedGroup& group, const ServerConfig& config) {
  const RankSettings settings = rank_settings(group, config);
  for (const MemoryTier tier : {MemoryTier::kDevice, MemoryTier::kHost}) {
    std::optional<size_t> num_bytes;
    for (size_t rank = 0; rank < plan.ranks.size(); ++rank) {
      if (!plan.ranks[rank].tiers.contains(tier)) continue;
      if (!num_bytes) num_bytes = buffer_bytes(group, tier, settings);
      const size_t room = room_for_buffers(group, plan.ranks[rank], tier);
      if (*num_bytes > room) return BufferShortage{static_cast<int>(rank), *num_bytes, room};
    }
  }
  return std::nullopt;
}

}  // namespace

void fit_logit_rows(const ExpertPlan& plan, const std::string& where, const PlannedGroup& group, ServerConfig& config) {
  if (!find_shortage(plan, group, config)) return;
  ServerConfig smaller = config;
  int64_t& rows = smaller.engine.max_logit_rows;
  int64_t fitting = config.engine.max_sequences_per_rank, too_many = config.engine.max_logit_rows;
  rows = fitting;
  if (const auto shortage = find_shortage(plan, group, smaller)) {
    throw Error("engine.max_tokens_per_step: " + std::to_string(config.engine.max_tokens_per_step) +
                " tokens take step buffers of " + memory_text(shortage->num_bytes) + " on rank " +
                std::to_string(shortage->rank) + ", but " + where + " has room for " + memory_text(shortage->room) +
                "; lower it, or run 'skipper plan' with these settings");
  }
  while (too_many - fitting > 1) {
    rows = fitting + (too_many - fitting) / 2;
    (find_shortage(plan, group, smaller) ? too_many : fitting) = rows;
  }
  config.engine.max_logit_rows = fitting;
}

}  // namespace skipper

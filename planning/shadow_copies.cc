#include "planning/shadow_copies.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>

#include "base/error.h"
#include "planning/analytic_profile.h"
#include "planning/memory_size.h"
#include "planning/plan_problem.h"

namespace skipper {
namespace {

// All experts as [layer · num_experts + expert], the most used first.
std::vector<int32_t> experts_by_use(const PlanRequest& request, const PlanSubject& subject) {
  std::vector<int32_t> experts(static_cast<size_t>(subject.num_moe_layers * subject.num_experts));
  std::iota(experts.begin(), experts.end(), 0);
  std::ranges::stable_sort(experts, std::ranges::greater(), [&](int32_t expert) {
    return request.profile.use_of({expert / subject.num_experts, expert % subject.num_experts});
  });
  return experts;
}

// How many copies of each layer a rank has.
std::map<int32_t, int32_t> count_slots(const ExpertPlan& plan, int32_t rank) {
  std::map<int32_t, int32_t> slots;
  for (const ExpertCopy& copy : plan.copies) {
    if (copy.rank == rank) ++slots[copy.id.layer];
  }
  return slots;
}

}  // namespace

double relative_error(const WeightFormat& format) {
  constexpr double kMatrices = 3.0;  // gate, up and down, whose errors are independent
  return std::min(kMatrices * rounding_variance(format), 1.0);
}

PlanRequest without_shadow_memory(const PlanRequest& request, const ShadowRequest& shadows) {
  PlanRequest rest = request;
  for (size_t rank = 0; rank < shadows.memory.size(); ++rank) {
    if (shadows.memory[rank] < rest.memory[rank]) {
      rest.memory[rank] -= shadows.memory[rank];
      continue;
    }
    throw ResourceExhausted("rank " + std::to_string(rank) + " has " + memory_text(rest.memory[rank]) +
                            " in all, no more than the " + memory_text(shadows.memory[rank]) +
                            " of --shadow_memory; raise --memory or lower --shadow_memory");
  }
  return rest;
}

void add_shadows(ExpertPlan& plan, const PlanRequest& request, const ShadowRequest& shadows) {
  const size_t num_bytes = expert_bytes_in(request.model, shadows.format, ComputePlace::kHost);
  const std::vector<int32_t> owners = owners_of(plan), by_use = experts_by_use(request, plan.subject);
  for (int32_t rank = 0; rank < plan.subject.world_size; ++rank) {
    TierBudget& host = plan.ranks[static_cast<size_t>(rank)].tiers.at(MemoryTier::kHost);
    size_t room = host.budget_bytes - host.use.total_bytes();
    if (!shadows.memory.empty()) {
      room = shadows.memory[static_cast<size_t>(rank)];
      host.budget_bytes += room;
    }
    std::map<int32_t, int32_t> next_slot = count_slots(plan, rank);
    for (const int32_t expert : by_use) {
      if (room < num_bytes) break;
      if (owners[static_cast<size_t>(expert)] == rank) continue;
      const ExpertId id{expert / plan.subject.num_experts, expert % plan.subject.num_experts};
      plan.copies.push_back({.id = id, .rank = rank, .slot = next_slot[id.layer]++, .format = shadows.format,
                             .role = CopyRole::kShadow});
      host.use.experts[name_of(shadows.format)] += num_bytes;
      room -= num_bytes;
    }
  }
  check_expert_plan(plan, "the plan");
}

}  // namespace skipper

#include "planning/plan_problem.h"

#include <algorithm>
#include <set>

#include "experts/expert_store.h"
#include "kernels/cuda/device_matrix.h"

namespace skipper {
namespace {

struct TierUse {
  MemoryTier tier;
  ComputePlace runs_on;
  double bytes_per_second;

  // What the CPU multiplies with, it reads as fast as it multiplies.
  double seconds(const MachineRates& rates, const WeightFormat& format, size_t num_bytes) const {
    const bool is_product = tier == MemoryTier::kHost && runs_on == ComputePlace::kHost;
    return static_cast<double>(num_bytes) / (is_product ? rates.host_rate(format) : bytes_per_second);
  }
};

// Experts of a host with a GPU are read by it over its bus, or computed where they lie.
std::vector<TierUse> tier_uses(const PlanProblem& problem) {
  const MachineRates& rates = problem.rates;
  const bool has_device = problem.has(MemoryTier::kDevice);
  const ComputePlace place = has_device ? ComputePlace::kDevice : ComputePlace::kHost;
  std::vector<TierUse> uses;
  if (has_device) uses.push_back({MemoryTier::kDevice, place, rates.device});
  if (problem.has(MemoryTier::kHost)) {
    uses.push_back({MemoryTier::kHost, ComputePlace::kHost, rates.host});
    if (has_device) uses.push_back({MemoryTier::kHost, place, rates.link});
  }
  if (problem.has(MemoryTier::kDisk)) uses.push_back({MemoryTier::kDisk, place, rates.disk});
  return uses;
}

std::vector<WeightFormat> possible_formats(const PlanProblem& problem) {
  std::vector<WeightFormat> formats;
  if (!problem.model.quantization) {
    if (problem.has_unrounded) formats.emplace_back();
    formats.insert(formats.end(), problem.profile.formats.begin(), problem.profile.formats.end());
    return formats;
  }
  formats = {problem.model.quantization->experts};
  for (const auto& [id, format] : problem.model.quantization->expert_formats) {
    if (std::ranges::find(formats, format) == formats.end()) formats.push_back(format);
  }
  return formats;
}

bool runs_on_devices(const WeightFormat& format) { return !format.is_asymmetric() && format.kind != WeightKind::kF32; }

size_t smallest_bytes(const PlanProblem& problem) {
  size_t smallest = std::numeric_limits<size_t>::max();
  for (const ExpertOption& option : expert_options(problem)) smallest = std::min(smallest, option.num_bytes);
  return smallest;
}

// The tier of a rank where more memory would help first.
MemoryTier main_tier(const PlanProblem& problem) {
  return problem.has(MemoryTier::kDevice) ? MemoryTier::kDevice : MemoryTier::kHost;
}

size_t left_on(const RankPlanMemory& rank) {
  size_t left = 0;
  for (const auto& [tier, budget] : rank.tiers) left += left_for_experts(budget);
  return left;
}

// Of the rank that is furthest from holding the experts that are its own.
std::optional<MemoryShortage> shortage_of_owners(const PlanProblem& problem) {
  const size_t smallest = smallest_bytes(problem);
  std::optional<MemoryShortage> worst;
  for (int rank = 0; rank < problem.num_ranks(); ++rank) {
    const size_t wanted = static_cast<size_t>(std::ranges::count(problem.owners, rank)) * smallest;
    const size_t left = left_on(problem.ranks[static_cast<size_t>(rank)]);
    if (left >= wanted || (worst && worst->missing_bytes >= wanted - left)) continue;
    worst = MemoryShortage{rank, main_tier(problem), wanted - left};
  }
  return worst;
}

}  // namespace

double MachineRates::host_rate(const WeightFormat& format) const {
  const auto measured = products.find(name_of(format));
  return measured == products.end() ? host : measured->second;
}

std::vector<ExpertOption> expert_options(const PlanProblem& problem) {
  std::vector<ExpertOption> options;
  for (const TierUse& use : tier_uses(problem)) {
    for (const WeightFormat& format : possible_formats(problem)) {
      if (use.runs_on == ComputePlace::kDevice && !runs_on_devices(format)) continue;
      const size_t num_bytes = expert_bytes_in(problem.model, format, use.runs_on);
      options.push_back({format, use.tier, use.runs_on, num_bytes, use.seconds(problem.rates, format, num_bytes)});
    }
  }
  return options;
}

size_t expert_bytes_in(const ModelConfig& model, const WeightFormat& format, ComputePlace runs_on) {
  const int64_t hidden_size = model.hidden_size, width = model.moe.intermediate_size;
  if (runs_on == ComputePlace::kHost) return stored_expert_bytes(format, hidden_size, width);
  return cuda::device_matrix_bytes(format, {2 * width, hidden_size}) + cuda::device_matrix_bytes(format, {hidden_size, width});
}

size_t left_for_experts(const TierBudget& budget) {
  const size_t fixed = budget.use.fixed_bytes();
  return budget.budget_bytes > fixed ? budget.budget_bytes - fixed : 0;
}

std::optional<MemoryShortage> find_shortage(const PlanProblem& problem) {
  for (int rank = 0; rank < problem.num_ranks(); ++rank) {
    for (const auto& [tier, budget] : problem.ranks[static_cast<size_t>(rank)].tiers) {
      const size_t fixed = budget.use.fixed_bytes();
      if (fixed > budget.budget_bytes) return MemoryShortage{rank, tier, fixed - budget.budget_bytes};
    }
  }
  const auto num_experts = static_cast<size_t>(problem.model.num_moe_layers() * problem.model.moe.num_experts);
  if (num_experts == 0) return std::nullopt;
  if (!problem.owners.empty()) return shortage_of_owners(problem);
  // Whole experts: a rank may have to take one more than its share.
  const size_t per_rank = (num_experts + problem.ranks.size() - 1) / problem.ranks.size();
  const size_t wanted = per_rank * problem.ranks.size() * smallest_bytes(problem);
  size_t left = 0;
  for (const RankPlanMemory& rank : problem.ranks) left += left_on(rank);
  if (left >= wanted) return std::nullopt;
  const auto least = std::ranges::min_element(problem.ranks, {}, left_on);
  return MemoryShortage{static_cast<int>(least - problem.ranks.begin()), main_tier(problem),
                        (wanted - left + problem.ranks.size() - 1) / problem.ranks.size()};
}

}  // namespace skipper

#include "planning/plan_request.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "planning/plan_report.h"
#include "planning/plan_solver.h"
#include "planning/plan_steps.h"

namespace skipper {
namespace {

constexpr int kMaxAdvisedRanks = 4096;
constexpr int kMaxEnlargements = 8;
// What an expert cache for those on disk holds at least: those of a token and those of the next layer.
constexpr size_t kCachedLayers = 2;

// Experts on disk pass through a cache in the memory of the processor that computes them.
void add_disk(const PlanRequest& request, RankPlanMemory& rank) {
  rank.tiers[MemoryTier::kDisk].budget_bytes = request.disk_bytes;
  rank.tiers.begin()->second.use.buffers += expert_cache_bytes(request.model, request.place);
}

void add_ranks(const PlanRequest& request, PlanProblem& problem) {
  RankSettings settings = request.settings;
  settings.world_size = static_cast<int>(request.memory.size());
  const bool has_gpus = request.place == ComputePlace::kDevice;
  const MemoryUse main = has_gpus ? device_memory_without_experts(request.model, settings)
                                  : host_memory_without_experts(request.model, settings);
  for (size_t rank = 0; rank < request.memory.size(); ++rank) {
    RankPlanMemory& tiers = problem.ranks.emplace_back();
    tiers.tiers[has_gpus ? MemoryTier::kDevice : MemoryTier::kHost] = {request.memory[rank], main};
    if (!request.host_memory.empty()) {
      tiers.tiers[MemoryTier::kHost] = {request.host_memory[rank], host_memory_beside_device(request.model, settings)};
    }
    if (request.disk_bytes > 0) add_disk(request, tiers);
  }
}

double least_uniform_loss_of_four_bits(const PlanProblem& problem) {
  double least = std::numeric_limits<double>::infinity();
  if (problem.model.quantization) return least;
  for (const ExpertOption& option : expert_options(problem)) {
    if (option.format.bits_per_code() == 4) least = std::min(least, uniform_loss_of(problem, option.format));
  }
  return least;
}

// As many ranks as `count`, each with the memory of the smallest.
PlanRequest with_ranks(const PlanRequest& request, size_t count) {
  PlanRequest other = request;
  other.memory.assign(count, std::ranges::min(request.memory));
  if (!request.host_memory.empty()) other.host_memory.assign(count, std::ranges::min(request.host_memory));
  other.owners.clear();
  return other;
}

// The memory that is short; beside a GPU the host's is another than the main one.
std::vector<size_t>& memory_of(PlanRequest& request, MemoryTier tier) {
  const bool is_beside = tier == MemoryTier::kHost && request.place == ComputePlace::kDevice;
  return is_beside ? request.host_memory : request.memory;
}

// Where not even what holds no experts fits, experts come on top.
size_t enough_memory(const PlanRequest& request, const MemoryShortage& shortage) {
  PlanRequest larger = request;
  std::optional<MemoryShortage> missing = shortage;
  for (int round = 0; missing && round < kMaxEnlargements; ++round) {
    for (size_t& size : memory_of(larger, missing->tier)) size += missing->missing_bytes;
    missing = find_shortage(problem_of(larger));
  }
  return std::ranges::max(memory_of(larger, shortage.tier));
}

// 0 where none would do: as soon as what holds no experts does not fit, since its buffers only grow with the ranks.
int enough_ranks(const PlanRequest& request) {
  for (size_t ranks = request.memory.size() + 1; ranks <= kMaxAdvisedRanks; ranks += (ranks + 7) / 8) {
    const PlanRequest wider = with_ranks(request, ranks);
    const PlanProblem problem = problem_of(wider);
    if (!find_shortage(problem)) return static_cast<int>(ranks);
    const auto has_no_room = [](const auto& tier) { return left_for_experts(tier.second) == 0; };
    if (std::ranges::all_of(problem.ranks.front().tiers, has_no_room)) return 0;
  }
  return 0;
}

bool fits(const PlanRequest& request) { return !find_shortage(problem_of(request)); }

ShortageAdvice advise(const PlanRequest& request, const MemoryShortage& shortage) {
  ShortageAdvice advice{.has_disk = request.disk_bytes > 0};
  advice.enough_memory = enough_memory(request, shortage);
  advice.enough_ranks = enough_ranks(request);
  PlanRequest smaller = request;
  for (int64_t& blocks = smaller.settings.kv_cache.num_blocks; blocks > 1 && advice.enough_kv_blocks == 0;) {
    blocks /= 2;
    if (fits(smaller)) advice.enough_kv_blocks = blocks;
  }
  return advice;
}

}  // namespace

PlanProblem problem_of(const PlanRequest& request) {
  PlanProblem problem{.model = request.model, .profile = request.profile, .ranks = {}};
  add_ranks(request, problem);
  problem.dense_bytes = decode_weight_bytes(request.model, request.settings.weights);
  problem.dense_format = dense_format(request.model, request.settings.weights);
  problem.owners = request.owners;
  problem.rates = request.rates;
  if (!request.max_loss && request.target == PlanTarget::kQuality) return problem;
  problem.target = PlanTarget::kThroughput;
  problem.max_loss = request.max_loss ? *request.max_loss : least_uniform_loss_of_four_bits(problem);
  return problem;
}

size_t expert_cache_bytes(const ModelConfig& model, ComputePlace place) {
  return kCachedLayers * static_cast<size_t>(model.moe.top_k) * expert_bytes_in(model, {}, place);
}

ExpertPlan plan_for(const PlanRequest& request) {
  const PlanProblem problem = problem_of(request);
  if (const auto shortage = find_shortage(problem)) {
    throw ResourceExhausted(shortage_line(*shortage, advise(request, *shortage)));
  }
  ExpertPlan plan = make_plan(problem);
  plan.origin.kv_tokens_per_rank = request.settings.kv_cache.num_blocks * request.settings.kv_cache.block_size;
  if (request.max_loss) plan.origin.target = "max_loss";
  return plan;
}

MemoryRange memory_range_of(const PlanRequest& request) {
  PlanRequest other = request;
  other.memory.assign(request.memory.size(), 0);
  MemoryRange range;
  if (const auto shortage = find_shortage(problem_of(other))) range.least = enough_memory(other, *shortage);
  const auto num_experts = static_cast<size_t>(request.model.num_moe_layers() * request.model.moe.num_experts);
  other.memory.assign(request.memory.size(), range.least + num_experts * expert_bytes_in(request.model, {}, request.place));
  const ExpertPlan plan = plan_for(other);
  for (const RankPlanMemory& rank : plan.ranks) {
    range.most = std::max(range.most, rank.tiers.begin()->second.use.total_bytes());
  }
  range.layer = largest_layer_bytes(request.model, plan);
  return range;
}

std::vector<int32_t> owners_of(const ExpertPlan& plan) {
  const auto num_experts = static_cast<size_t>(plan.subject.num_experts);
  std::vector<int32_t> owners(static_cast<size_t>(plan.subject.num_moe_layers) * num_experts);
  for (const ExpertCopy& copy : plan.copies) {
    if (copy.role != CopyRole::kServing) continue;
    owners[static_cast<size_t>(copy.id.layer) * num_experts + static_cast<size_t>(copy.id.expert)] = copy.rank;
  }
  return owners;
}

}  // namespace skipper

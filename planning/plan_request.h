// What somebody asks of a plan, and the plan for it: shared by `skipper plan`, servers that plan at start, live switches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "planning/plan_problem.h"
#include "planning/rank_memory.h"

namespace skipper {

// Model and profile outlive the request.
struct PlanRequest {
  const ModelConfig& model;
  const PrecisionProfile& profile;
  RankSettings settings = {};  // world_size aside, which is the number of memories
  ComputePlace place = ComputePlace::kHost;
  std::vector<size_t> memory = {};       // [rank] of the processor that computes, for all that the rank holds in it
  std::vector<size_t> host_memory = {};  // [rank] of the host beside a GPU; empty: it holds no experts
  size_t disk_bytes = 0;            // of each rank; 0: no disk
  PlanTarget target = PlanTarget::kQuality;
  std::optional<double> max_loss = {};   // makes the target kThroughput
  // [layer · num_experts + expert] the rank that keeps each expert, so that plans differ in formats and tiers alone; empty: the
  // plan chooses. Slots follow from ranks alone (ascending by expert).
  std::vector<int32_t> owners = {};
  MachineRates rates = {};
};

// Budgets, what ranks hold besides experts, and the bound on the loss. Without a bound of its own, throughput loses no more
// than the best uniform format of four bits.
PlanProblem problem_of(const PlanRequest& request);

// What a plan with a disk sets aside, among the buffers, for experts that are read from it: those of a token in two layers.
size_t expert_cache_bytes(const ModelConfig& model, ComputePlace place);

// The plan, checked, without hashes. Throws ResourceExhausted where it does not fit: "short by X on rank R: do one of ...".
ExpertPlan plan_for(const PlanRequest& request);

// Of each rank, all ranks alike, in the memory of the processor that computes; that of the request does not matter.
struct MemoryRange {
  size_t least = 0;  // that the experts fit in, however they are rounded
  size_t most = 0;   // what a plan takes where memory is no limit
  size_t layer = 0;  // of that plan, the experts of one layer
};
MemoryRange memory_range_of(const PlanRequest& request);

// The rank of each serving copy, as PlanRequest::owners.
std::vector<int32_t> owners_of(const ExpertPlan& plan);

}  // namespace skipper

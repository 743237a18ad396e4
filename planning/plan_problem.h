// What a plan is made from: the model's shape, what rounding costs, and what each rank may use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/model_config.h"
#include "planning/expert_plan.h"
#include "planning/precision_profile.h"

namespace skipper {

// Bytes a second at which weights are read, by where they rest. Until they are measured: one H100, a PCIe 5 bus, two channels of
// DDR5, an NVMe disk.
struct MachineRates {
  double device = 2.8e12;
  double link = 4.5e10;  // host memory, read by a GPU
  double host = 4.0e10;  // host memory, read by the CPU
  double disk = 2.5e9;
  // By name of the format: of the CPU's products with one row, where they were measured; else `host`.
  std::map<std::string, double> products = {};
  // Between ranks, for each dispatch and each combine of one token; 0: not measured.
  double exchange_seconds = 0.0;
  std::string source = {};  // "machine.json, of node0"; empty: assumed

  double host_rate(const WeightFormat& format) const;
};

enum class PlanTarget : uint8_t {
  kQuality,     // the least loss; of equal plans the fastest
  kThroughput,  // the fastest that loses no more than max_loss
};

struct PlanProblem {
  const ModelConfig& model;
  const PrecisionProfile& profile;
  std::vector<RankPlanMemory> ranks;  // budgets, and uses without experts; every rank has the same tiers
  PlanTarget target = PlanTarget::kQuality;
  double max_loss = std::numeric_limits<double>::infinity();
  size_t dense_bytes = 0;  // that every generated token reads
  WeightFormat dense_format = {};
  MachineRates rates = {};
  std::vector<int32_t> owners = {};  // [layer · num_experts + expert] rank; empty: the plan chooses
  bool has_unrounded = true;  // experts may stay as the checkpoint has them

  int num_ranks() const { return static_cast<int>(ranks.size()); }
  bool has(MemoryTier tier) const { return ranks.front().tiers.contains(tier); }
};

// One way to hold an expert.
struct ExpertOption {
  WeightFormat format;
  MemoryTier tier = MemoryTier::kHost;
  ComputePlace runs_on = ComputePlace::kHost;
  size_t num_bytes = 0;
  double seconds_per_use = 0.0;  // to read it once
};

// All ways that the ranks' tiers and the profile's formats allow; of a quantised checkpoint an expert keeps the format that it
// has. Formats that GPUs do not multiply with are for hosts alone.
std::vector<ExpertOption> expert_options(const PlanProblem& problem);

// Bytes of an expert's matrices in a tier.
size_t expert_bytes_in(const ModelConfig& model, const WeightFormat& format, ComputePlace runs_on);

// What is left of a budget beside what holds no experts; 0 where that takes more.
size_t left_for_experts(const TierBudget& budget);

// Experts do not fit however they are rounded.
struct MemoryShortage {
  int rank = 0;             // the one with the least left
  MemoryTier tier = MemoryTier::kHost;
  size_t missing_bytes = 0;  // on that rank, and on every other where they have the same budget
};
// Looks at the smallest format of each expert. Empty when there is enough.
std::optional<MemoryShortage> find_shortage(const PlanProblem& problem);

}  // namespace skipper

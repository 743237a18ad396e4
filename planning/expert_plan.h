// What a plan says: in which format, in which memory and on which rank every copy of every expert rests, and what that costs.
//
// plan.json, version 1 (`skipper plan` writes it, `skipper serve --plan` loads exactly that). Layers count MoE layers:
//
//   {"version": 1, "model_fingerprint": "0123456789abcdef", "num_moe_layers": 48, "num_experts": 128, "world_size": 2,
//    "origin": {"target": "quality", "profile": "measured", "kv_tokens_per_rank": 65536, "operating_point": ""},
//    "copies": [{"layer": 0, "expert": 0, "rank": 0, "slot": 0, "format": "int4a-g32", "tier": "device", "runs_on": "device",
//                "shadow": false, "hash": ""}, ...],
//    "ranks": [{"device": {"budget": 80000000000, "runtime": 0, "dense_weights": 0, "kv_cache": 0, "buffers": 0,
//                          "experts": {"int4a-g32": 0}}, "host": {...}, "disk": {...}}, ...],
//    "predicted": {"loss": 0.01, "expert_bits": 4.5, "bytes_per_token": 1000000, "seconds_per_token": 0.002},
//    "certificate": {"loss_bound": 0.0099, "seconds_bound": 0.002, "gap": 0.0008, "method": "lagrangian"}}
//
// "operating_point" is absent where the profile does not name one.
//
// Goals: complete (nothing about experts is decided later), checkable (hashes, budgets, a bound), the same file for every rank.
// Not in it: dense weights' formats and step sizes, which are settings of the server.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "experts/expert_id.h"
#include "kernels/weight_format.h"

namespace skipper {

// The memory in which a copy rests. A rank without a GPU has no kDevice.
enum class MemoryTier : uint8_t { kDevice, kHost, kDisk };
// The processor that computes a copy, whatever a cache holds: a token's bits follow from the plan alone.
enum class ComputePlace : uint8_t { kDevice, kHost };
// A shadow copy stands in for an expert of another rank when a trip is not worth its bytes; it never serves gold requests.
enum class CopyRole : uint8_t { kServing, kShadow };

inline constexpr int kNumMemoryTiers = 3;

std::string_view name_of(MemoryTier tier);      // "device", "host", "disk"
std::string_view name_of(ComputePlace place);  // "device", "host"

struct ExpertCopy {
  ExpertId id;
  int32_t rank = 0;
  int32_t slot = 0;  // among the rank's copies of that layer, shadows included: 0, 1, ... without gaps
  WeightFormat format;
  MemoryTier tier = MemoryTier::kHost;
  ComputePlace runs_on = ComputePlace::kHost;
  CopyRole role = CopyRole::kServing;
  // Of the codes in memory, 16 hexadecimal digits; empty until somebody who has read the weights fills it in.
  std::string hash = {};

  friend bool operator==(const ExpertCopy&, const ExpertCopy&) = default;
};

// Bytes by what they hold.
struct MemoryUse {
  size_t runtime = 0;        // process, libraries, a GPU's context, pages of the checkpoint that stay mapped
  size_t dense_weights = 0;  // everything but the experts
  size_t kv_cache = 0;
  size_t buffers = 0;        // of a step, and of loading; expert caches and staging included
  size_t reference_experts = 0;  // that a guard compares the served ones with
  std::map<std::string, size_t> experts = {};  // by name of the format, what alignment costs included

  size_t fixed_bytes() const { return runtime + dense_weights + kv_cache + buffers + reference_experts; }
  size_t expert_bytes() const;
  size_t total_bytes() const { return fixed_bytes() + expert_bytes(); }
  friend bool operator==(const MemoryUse&, const MemoryUse&) = default;
};

// What a rank may use of one memory, and what the plan makes it use.
struct TierBudget {
  size_t budget_bytes = 0;
  MemoryUse use;

  friend bool operator==(const TierBudget&, const TierBudget&) = default;
};

struct RankPlanMemory {
  // A tier that the rank has not is absent.
  std::map<MemoryTier, TierBudget> tiers;

  friend bool operator==(const RankPlanMemory&, const RankPlanMemory&) = default;
};

struct PlanPrediction {
  double loss = 0.0;               // KL in nats per token against unrounded experts; relative units where the profile is analytic
  double expert_bits = 0.0;        // per weight, mean over serving copies
  double bytes_per_token = 0.0;    // weights read for one token of one stream, over all ranks
  double seconds_per_token = 0.0;  // of one stream

  friend bool operator==(const PlanPrediction&, const PlanPrediction&) = default;
};

// How far the plan may be from the best one. `gap` is that of the quantity that the target minimises: (plan − bound) / bound.
struct PlanCertificate {
  double loss_bound = 0.0;     // no plan within the budgets loses less
  double seconds_bound = 0.0;  // no plan within budgets and loss takes less; 0 where time was not the target
  double gap = 0.0;
  std::string method = "lagrangian";  // "lagrangian", "exact"

  friend bool operator==(const PlanCertificate&, const PlanCertificate&) = default;
};

// What a plan was asked for, and made from.
struct PlanOrigin {
  std::string target = "quality";     // "quality", "throughput", "max_loss"
  std::string profile = "analytic";   // "measured", "analytic"
  int64_t kv_tokens_per_rank = 0;     // that the KV caches of the budgets have room for
  // Identity of the level of skipping that the profile was measured at (planning/precision_profile.h).
  std::optional<std::string> operating_point = {};

  friend bool operator==(const PlanOrigin&, const PlanOrigin&) = default;
};

// The model and the group that a plan is for.
struct PlanSubject {
  std::string model_fingerprint;
  int num_moe_layers = 0;
  int num_experts = 0;
  int world_size = 1;

  friend bool operator==(const PlanSubject&, const PlanSubject&) = default;
};

struct ExpertPlan {
  PlanSubject subject;
  PlanOrigin origin;
  std::vector<ExpertCopy> copies;     // by layer, rank and slot
  std::vector<RankPlanMemory> ranks;  // [world_size]
  PlanPrediction predicted;
  PlanCertificate certificate;

  // What one rank holds, [layer][slot]; shadows included.
  std::vector<std::vector<ExpertCopy>> copies_of(int rank) const;
  friend bool operator==(const ExpertPlan&, const ExpertPlan&) = default;
};

// Sorts the copies by layer, rank and slot and throws InvalidFile, beginning with `where`, for: a layer, expert or rank that does
// not exist; an expert without a serving copy; two copies of one expert on a rank; slots with gaps or doubles; a copy in a tier
// that its rank has not, or on disk or host but computed by a device the rank has not; ranks that are not world_size; a tier
// over its budget; a hash that is none.
void check_expert_plan(ExpertPlan& plan, const std::string& where);

// Throws InvalidFile naming file and key: what read_json_file() and check_expert_plan() refuse, unknown keys, unknown formats,
// and a plan of another model or another number of ranks (both values named).
ExpertPlan load_expert_plan(const std::filesystem::path& path, const PlanSubject& subject);
// The same without knowing the model: for programs that only read a plan.
ExpertPlan load_expert_plan(const std::filesystem::path& path);
// The same of the text of a plan, which `where` names in messages: as ranks send it to one another.
ExpertPlan parse_expert_plan(const std::string& text, const std::string& where, const PlanSubject& subject);

std::string to_json(const ExpertPlan& plan);

}  // namespace skipper

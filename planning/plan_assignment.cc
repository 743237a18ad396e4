#include "planning/plan_assignment.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "model/expert_hash.h"
#include "model/weight_loader.h"
#include "planning/shadow_copies.h"
#include "tensor/safetensors.h"

namespace skipper {
namespace {

std::string describe(const ExpertCopy& copy) {
  return "expert " + std::to_string(copy.id.expert) + " of MoE layer " + std::to_string(copy.id.layer);
}

// Copies come by layer, rank and slot; a store's slots are the owned experts, then the shadows.
void require_before_shadows(const ExpertCopy& serving, const std::vector<ShadowExpert>& shadows, const std::string& where) {
  if (shadows.empty() || shadows.back().rank != serving.rank || shadows.back().id.layer != serving.id.layer) return;
  throw InvalidFile(where + ": " + describe(serving) + " is in slot " + std::to_string(serving.slot) + " of rank " +
                    std::to_string(serving.rank) + ", after a shadow; give shadows the last slots");
}

void refuse_shadows(const ExpertPlan& plan, const std::string& where) {
  const auto shadow = std::ranges::find(plan.copies, CopyRole::kShadow, &ExpertCopy::role);
  if (shadow == plan.copies.end()) return;
  throw InvalidFile(where + ": " + describe(*shadow) + " has a shadow on rank " + std::to_string(shadow->rank) +
                    ", but GPUs use none; make the plan without --shadow_format");
}

ExpertPlacement placement_of(const ExpertPlan& plan, const std::string& where) {
  const PlanSubject& subject = plan.subject;
  constexpr int32_t kNowhere = -1;
  std::vector<ExpertHome> homes(static_cast<size_t>(subject.num_moe_layers) * static_cast<size_t>(subject.num_experts),
                                {.rank = kNowhere, .slot = 0});
  std::vector<ShadowExpert> shadows;
  for (const ExpertCopy& copy : plan.copies) {
    ExpertHome& home = homes[static_cast<size_t>(copy.id.layer) * static_cast<size_t>(subject.num_experts) +
                             static_cast<size_t>(copy.id.expert)];
    if (copy.role == CopyRole::kShadow) {
      shadows.push_back({.id = copy.id, .rank = copy.rank, .relative_error = static_cast<float>(relative_error(copy.format))});
      continue;
    }
    require_before_shadows(copy, shadows, where);
    if (home.rank != kNowhere) {
      throw InvalidFile(where + ": " + describe(copy) + " has a further copy on rank " + std::to_string(copy.rank) +
                        ", but one of each expert is served; make a plan without copies");
    }
    home = {.rank = copy.rank, .slot = copy.slot};
  }
  return ExpertPlacement::from_homes({.num_moe_layers = subject.num_moe_layers,
                                      .num_experts = subject.num_experts,
                                      .world_size = subject.world_size},
                                     std::move(homes))
      .with_shadows(shadows);
}

GpuExpertTier gpu_tier_of(const ExpertCopy& copy) {
  if (copy.tier == MemoryTier::kDevice) return GpuExpertTier::kDevice;
  return copy.runs_on == ComputePlace::kDevice ? GpuExpertTier::kHostStreamed : GpuExpertTier::kHostComputed;
}

void require_servable_from_disk(const ExpertCopy& copy, DeviceKind kind, DiskUse disk, const std::string& what) {
  if (copy.tier != MemoryTier::kDisk) return;
  const std::string rests = what + " rests on the disk of rank " + std::to_string(copy.rank);
  if (kind != DeviceKind::kHost) {
    throw InvalidFile(rests + ", but GPUs compute from memory alone; give the plan more memory, and no --disk");
  }
  if (disk == DiskUse::kServed) return;
  throw InvalidFile(rests +
                    ", and nothing says where that is; start with --disk DIR, or give the plan more memory and no --disk");
}

// Of a copy that this rank holds.
void require_servable(const ExpertCopy& copy, DeviceKind kind, DiskUse disk, const std::string& where) {
  const std::string what = where + ": " + describe(copy);
  require_servable_from_disk(copy, kind, disk, what);
  if (kind == DeviceKind::kHost && copy.runs_on == ComputePlace::kDevice) {
    throw InvalidFile(what + " runs on a GPU of rank " + std::to_string(copy.rank) +
                      ", but this rank computes on the CPU; start with --device cuda, or make the plan with --device cpu");
  }
}

// The slots of one layer for loading all of its copies at once, each in its own format.
std::vector<ExpertSlot> slots_of_layer(const ExpertPlan& plan, int layer) {
  std::vector<ExpertSlot> slots;
  for (const ExpertCopy& copy : plan.copies) {
    if (copy.id.layer == layer) slots.push_back({copy.id.expert, copy.format, ExpertTier::kHost});
  }
  return slots;
}

}  // namespace

ExpertAssignment assignment_of(const ExpertPlan& plan, int rank, DeviceKind kind, const std::string& where, DiskUse disk) {
  ExpertAssignment assignment{placement_of(plan, where), {}};
  for (const std::vector<ExpertCopy>& layer : plan.copies_of(rank)) {
    std::vector<AssignedExpert>& slots = assignment.slots.emplace_back();
    for (const ExpertCopy& copy : layer) {
      require_servable(copy, kind, disk, where);
      const bool is_on_disk = copy.tier == MemoryTier::kDisk;
      slots.push_back({copy.format, gpu_tier_of(copy), copy.hash, is_on_disk ? ExpertTier::kDisk : ExpertTier::kHost});
    }
  }
  if (kind != DeviceKind::kHost) refuse_shadows(plan, where);
  return assignment;
}

void add_hashes(ExpertPlan& plan, const std::filesystem::path& checkpoint, const ModelConfig& config, ThreadPool& workers,
                const std::function<void(size_t done, size_t total)>& progress) {
  const Checkpoint weights(checkpoint);
  const WeightConfig formats;
  auto copy = plan.copies.begin();  // by layer
  for (int layer = 0; layer < plan.subject.num_moe_layers; ++layer) {
    const std::vector<ExpertSlot> slots = slots_of_layer(plan, layer);
    for (std::string& hash : hashes_of_layer({weights, config, formats}, layer, slots, workers)) (copy++)->hash = std::move(hash);
    progress(static_cast<size_t>(layer) + 1, static_cast<size_t>(plan.subject.num_moe_layers));
  }
}

}  // namespace skipper

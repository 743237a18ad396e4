#include "planning/plan_assignment.h"

#include <utility>
#include <vector>

#include "base/error.h"
#include "model/expert_hash.h"
#include "model/weight_loader.h"
#include "tensor/safetensors.h"

namespace skipper {
namespace {

std::string describe(const ExpertCopy& copy) {
  return "expert " + std::to_string(copy.id.expert) + " of MoE layer " + std::to_string(copy.id.layer);
}

ExpertPlacement placement_of(const ExpertPlan& plan, const std::string& where) {
  const PlanSubject& subject = plan.subject;
  constexpr int32_t kNowhere = -1;
  std::vector<ExpertHome> homes(static_cast<size_t>(subject.num_moe_layers) * static_cast<size_t>(subject.num_experts),
                                {.rank = kNowhere, .slot = 0});
  for (const ExpertCopy& copy : plan.copies) {
    ExpertHome& home = homes[static_cast<size_t>(copy.id.layer) * static_cast<size_t>(subject.num_experts) +
                             static_cast<size_t>(copy.id.expert)];
    if (copy.role == CopyRole::kShadow || home.rank != kNowhere) {
      throw InvalidFile(where + ": " + describe(copy) + " has a further copy on rank " + std::to_string(copy.rank) +
                        ", but one of each expert is served; make a plan without copies");
    }
    home = {.rank = copy.rank, .slot = copy.slot};
  }
  return ExpertPlacement::from_homes({.num_moe_layers = subject.num_moe_layers,
                                      .num_experts = subject.num_experts,
                                      .world_size = subject.world_size},
                                     std::move(homes));
}

GpuExpertTier gpu_tier_of(const ExpertCopy& copy) {
  if (copy.tier == MemoryTier::kDevice) return GpuExpertTier::kDevice;
  return copy.runs_on == ComputePlace::kDevice ? GpuExpertTier::kHostStreamed : GpuExpertTier::kHostComputed;
}

// Of a copy that this rank holds.
void require_servable(const ExpertCopy& copy, DeviceKind kind, const std::string& where) {
  const std::string what = where + ": " + describe(copy);
  if (copy.tier == MemoryTier::kDisk) {
    throw InvalidFile(what + " rests on the disk of rank " + std::to_string(copy.rank) +
                      ", but experts are served from memory; give the plan more memory, and no --disk");
  }
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

ExpertAssignment assignment_of(const ExpertPlan& plan, int rank, DeviceKind kind, const std::string& where) {
  ExpertAssignment assignment{placement_of(plan, where), {}};
  for (const std::vector<ExpertCopy>& layer : plan.copies_of(rank)) {
    std::vector<AssignedExpert>& slots = assignment.slots.emplace_back();
    for (const ExpertCopy& copy : layer) {
      require_servable(copy, kind, where);
      slots.push_back({copy.format, gpu_tier_of(copy), copy.hash});
    }
  }
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

// Which rank owns which expert, and in which slot.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "experts/expert_id.h"

namespace skipper {

struct ExpertHome {
  int32_t rank = 0;
  int32_t slot = 0;  // index among the rank's experts of that layer
};

struct PlacementShape {
  int num_moe_layers = 0;
  int num_experts = 0;
  int world_size = 1;
};

// Immutable, the same on every rank; `version` names it in the StepPlan.
class ExpertPlacement {
 public:
  // Consecutive blocks whose sizes differ by at most one: rank r owns experts [r·E/R, (r+1)·E/R) of every layer. With more
  // ranks than experts some ranks own none.
  static ExpertPlacement contiguous(const PlacementShape& shape);
  // As somebody else has decided: homes[layer · num_experts + expert], the slots of each layer and rank 0, 1, ... without gaps.
  static ExpertPlacement from_homes(const PlacementShape& shape, std::vector<ExpertHome> homes);

  uint32_t version() const { return version_; }
  int num_moe_layers() const { return shape_.num_moe_layers; }
  int num_experts() const { return shape_.num_experts; }
  int world_size() const { return shape_.world_size; }

  ExpertHome owner(const ExpertId& id) const;
  // The homes of all experts of one layer, in expert order.
  std::span<const ExpertHome> homes(int layer) const;
  // The experts of one rank in slot order.
  const std::vector<int32_t>& experts_of(int rank, int layer) const;
  // The same for all MoE layers: what an ExpertStore of this rank holds.
  std::vector<std::vector<int32_t>> experts_of(int rank) const;
  // The most experts that any rank owns of any layer.
  int max_local_experts() const;

 private:
  explicit ExpertPlacement(const PlacementShape& shape);
  void list_residents(int layer);

  uint32_t version_ = 1;
  PlacementShape shape_;
  std::vector<ExpertHome> homes_;               // [layer · num_experts + expert]
  std::vector<std::vector<int32_t>> residents_;  // [layer · world_size + rank]
};

}  // namespace skipper

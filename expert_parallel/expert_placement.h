// Which rank owns which expert, in which slot, and which ranks have shadow copies of others' experts.
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

// A copy of another rank's expert in a low format, for tokens of `rank` alone: it stands in for the expert where the trip to its
// owner is not worth its bytes (shadow_rule.h).
struct ShadowExpert {
  ExpertId id;
  int32_t rank = 0;
  float relative_error = 1.0f;  // ‖E_shadow(x) − E(x)‖² / ‖E(x)‖²
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

  // The same with shadows, which lie in the slots after those of the experts that their rank owns, in the order given. None is of
  // an expert that its rank owns.
  ExpertPlacement with_shadows(std::span<const ShadowExpert> shadows) const;

  uint32_t version() const { return version_; }
  int num_moe_layers() const { return shape_.num_moe_layers; }
  int num_experts() const { return shape_.num_experts; }
  int world_size() const { return shape_.world_size; }

  ExpertHome owner(const ExpertId& id) const;
  // The homes of all experts of one layer, in expert order.
  std::span<const ExpertHome> homes(int layer) const;
  // The same for the tokens of one rank: where there are shadows, [num_experts + e] is this rank's own shadow of expert e,
  // slot −1 where it has none. A routing names a shadow by that number.
  std::span<const ExpertHome> homes_seen_from(int rank, int layer) const;
  // Relative error of this rank's shadow of each expert, 1 where it has none; empty where no rank has shadows.
  std::span<const float> shadow_errors(int rank, int layer) const;
  bool has_shadows() const { return !shadow_errors_.empty(); }
  // The experts of one rank in slot order, its shadows included.
  const std::vector<int32_t>& experts_of(int rank, int layer) const;
  // The same for all MoE layers: what an ExpertStore of this rank holds.
  std::vector<std::vector<int32_t>> experts_of(int rank) const;
  // The most slots that any rank has in any layer.
  int max_local_experts() const;

 private:
  explicit ExpertPlacement(const PlacementShape& shape);
  void list_residents(int layer);
  size_t part_of(int rank, int layer) const;

  uint32_t version_ = 1;
  PlacementShape shape_;
  std::vector<ExpertHome> homes_;               // [layer · num_experts + expert]
  std::vector<std::vector<int32_t>> residents_;  // [layer · world_size + rank]
  // Empty without shadows.
  std::vector<ExpertHome> seen_homes_;  // [(layer · world_size + rank) · 2 · num_experts + expert or shadow]
  std::vector<float> shadow_errors_;    // [(layer · world_size + rank) · num_experts + expert]
};

}  // namespace skipper

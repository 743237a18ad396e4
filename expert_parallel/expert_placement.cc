#include "expert_parallel/expert_placement.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace skipper {

ExpertPlacement::ExpertPlacement(const PlacementShape& shape)
    : shape_(shape),
      homes_(static_cast<size_t>(shape.num_moe_layers) * static_cast<size_t>(shape.num_experts)),
      residents_(static_cast<size_t>(shape.num_moe_layers) * static_cast<size_t>(shape.world_size)) {
  CHECK_GE(shape.num_moe_layers, 0);
  CHECK_GT(shape.num_experts, 0);
  CHECK_GT(shape.world_size, 0);
}

ExpertPlacement ExpertPlacement::contiguous(const PlacementShape& shape) {
  ExpertPlacement placement(shape);
  const auto first_of = [&](int64_t rank) { return static_cast<int32_t>(rank * shape.num_experts / shape.world_size); };
  auto home = placement.homes_.begin();
  auto resident = placement.residents_.begin();
  for (int layer = 0; layer < shape.num_moe_layers; ++layer) {
    for (int32_t rank = 0; rank < shape.world_size; ++rank, ++resident) {
      for (int32_t expert = first_of(rank); expert < first_of(rank + 1); ++expert) {
        *home++ = {.rank = rank, .slot = static_cast<int32_t>(resident->size())};
        resident->push_back(expert);
      }
    }
  }
  return placement;
}

ExpertPlacement ExpertPlacement::from_homes(const PlacementShape& shape, std::vector<ExpertHome> homes) {
  ExpertPlacement placement(shape);
  CHECK_EQ(homes.size(), placement.homes_.size());
  placement.homes_ = std::move(homes);
  for (int layer = 0; layer < shape.num_moe_layers; ++layer) placement.list_residents(layer);
  return placement;
}

ExpertPlacement ExpertPlacement::with_shadows(std::span<const ShadowExpert> shadows) const {
  ExpertPlacement placement = *this;
  if (shadows.empty()) return placement;
  const auto num_experts = static_cast<size_t>(shape_.num_experts);
  placement.shadow_errors_.assign(residents_.size() * num_experts, 1.0f);
  for (int layer = 0; layer < shape_.num_moe_layers; ++layer) {
    for (int32_t rank = 0; rank < shape_.world_size; ++rank) {
      placement.seen_homes_.insert(placement.seen_homes_.end(), homes(layer).begin(), homes(layer).end());
      placement.seen_homes_.insert(placement.seen_homes_.end(), num_experts, {.rank = rank, .slot = -1});
    }
  }
  for (const ShadowExpert& shadow : shadows) {
    const size_t part = part_of(shadow.rank, shadow.id.layer);
    const auto expert = static_cast<size_t>(shadow.id.expert);
    std::vector<int32_t>& residents = placement.residents_[part];
    CHECK_NE(owner(shadow.id).rank, shadow.rank) << "MoE layer " << shadow.id.layer << ", expert " << expert;
    placement.seen_homes_[(2 * part + 1) * num_experts + expert].slot = static_cast<int32_t>(residents.size());
    placement.shadow_errors_[part * num_experts + expert] = shadow.relative_error;
    residents.push_back(shadow.id.expert);
  }
  return placement;
}

void ExpertPlacement::list_residents(int layer) {
  const size_t first = static_cast<size_t>(layer) * static_cast<size_t>(shape_.world_size);
  const std::span<const ExpertHome> layer_homes = homes(layer);
  for (const ExpertHome& home : layer_homes) {
    CHECK(home.rank >= 0 && home.rank < shape_.world_size) << "rank " << home.rank << " of " << shape_.world_size;
    residents_[first + static_cast<size_t>(home.rank)].push_back(-1);
  }
  for (size_t expert = 0; expert < layer_homes.size(); ++expert) {
    std::vector<int32_t>& residents = residents_[first + static_cast<size_t>(layer_homes[expert].rank)];
    const auto slot = static_cast<size_t>(layer_homes[expert].slot);
    CHECK(slot < residents.size() && residents[slot] < 0) << "MoE layer " << layer << ", expert " << expert << ": slot " << slot;
    residents[slot] = static_cast<int32_t>(expert);
  }
}

ExpertHome ExpertPlacement::owner(const ExpertId& id) const {
  CHECK(id.expert >= 0 && id.expert < shape_.num_experts) << "expert " << id.expert << " of " << shape_.num_experts;
  return homes(id.layer)[static_cast<size_t>(id.expert)];
}

std::span<const ExpertHome> ExpertPlacement::homes(int layer) const {
  CHECK(layer >= 0 && layer < shape_.num_moe_layers) << "MoE layer " << layer << " of " << shape_.num_moe_layers;
  const auto num_experts = static_cast<size_t>(shape_.num_experts);
  return std::span(homes_).subspan(static_cast<size_t>(layer) * num_experts, num_experts);
}

std::span<const ExpertHome> ExpertPlacement::homes_seen_from(int rank, int layer) const {
  if (!has_shadows()) return homes(layer);
  const auto num_experts = static_cast<size_t>(shape_.num_experts);
  return std::span(seen_homes_).subspan(part_of(rank, layer) * 2 * num_experts, 2 * num_experts);
}

std::span<const float> ExpertPlacement::shadow_errors(int rank, int layer) const {
  if (!has_shadows()) return {};
  const auto num_experts = static_cast<size_t>(shape_.num_experts);
  return std::span(shadow_errors_).subspan(part_of(rank, layer) * num_experts, num_experts);
}

const std::vector<int32_t>& ExpertPlacement::experts_of(int rank, int layer) const {
  return residents_[part_of(rank, layer)];
}

size_t ExpertPlacement::part_of(int rank, int layer) const {
  CHECK(rank >= 0 && rank < shape_.world_size) << "rank " << rank << " of " << shape_.world_size;
  CHECK(layer >= 0 && layer < shape_.num_moe_layers) << "MoE layer " << layer << " of " << shape_.num_moe_layers;
  return static_cast<size_t>(layer) * static_cast<size_t>(shape_.world_size) + static_cast<size_t>(rank);
}

std::vector<std::vector<int32_t>> ExpertPlacement::experts_of(int rank) const {
  std::vector<std::vector<int32_t>> layers;
  for (int layer = 0; layer < shape_.num_moe_layers; ++layer) layers.push_back(experts_of(rank, layer));
  return layers;
}

int ExpertPlacement::max_local_experts() const {
  size_t most = 0;
  for (const std::vector<int32_t>& experts : residents_) most = std::max(most, experts.size());
  return static_cast<int>(most);
}

}  // namespace skipper

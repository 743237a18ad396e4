#include "audit/logged_placement.h"

#include <algorithm>

namespace skipper {

namespace {

PlacementShape shape_of(const AuditHeader& header) {
  return {.num_moe_layers = header.num_moe_layers, .num_experts = header.num_experts, .world_size = header.world_size()};
}

std::vector<int32_t> owners_of(const ExpertPlacement& placement) {
  std::vector<int32_t> owners;
  for (int layer = 0; layer < placement.num_moe_layers(); ++layer) {
    for (const ExpertHome& home : placement.homes(layer)) owners.push_back(home.rank);
  }
  return owners;
}

// Of one rank; kNoShadow where it has none.
std::vector<float> shadow_errors_of(const ExpertPlacement& placement, int rank) {
  std::vector<float> errors;
  if (!placement.has_shadows()) return errors;
  const auto num_experts = static_cast<size_t>(placement.num_experts());
  for (int layer = 0; layer < placement.num_moe_layers(); ++layer) {
    for (size_t expert = 0; expert < num_experts; ++expert) {
      const bool has_shadow = placement.homes_seen_from(rank, layer)[num_experts + expert].slot >= 0;
      errors.push_back(has_shadow ? placement.shadow_errors(rank, layer)[expert] : kNoShadow);
    }
  }
  return errors;
}

ExpertPlacement placement_of_owners(const AuditHeader& header) {
  if (header.owners.empty()) return ExpertPlacement::contiguous(shape_of(header));
  const auto num_experts = static_cast<size_t>(header.num_experts);
  std::vector<ExpertHome> homes;
  std::vector<int32_t> next_slot;
  for (size_t i = 0; i < header.owners.size(); ++i) {
    if (i % num_experts == 0) next_slot.assign(static_cast<size_t>(header.world_size()), 0);
    homes.push_back({.rank = header.owners[i], .slot = next_slot[static_cast<size_t>(header.owners[i])]++});
  }
  return ExpertPlacement::from_homes(shape_of(header), std::move(homes));
}

}  // namespace

void log_placement(const ExpertPlacement& placement, AuditHeader& header) {
  header.shadow_errors = shadow_errors_of(placement, header.rank);
  header.owners = owners_of(placement);
  const bool are_blocks = std::ranges::equal(header.owners, owners_of(ExpertPlacement::contiguous(shape_of(header))));
  if (are_blocks) header.owners.clear();
}

ExpertPlacement placement_of(const AuditHeader& header) {
  const ExpertPlacement placement = placement_of_owners(header);
  std::vector<ShadowExpert> shadows;
  for (size_t i = 0; i < header.shadow_errors.size(); ++i) {
    if (header.shadow_errors[i] == kNoShadow) continue;
    const auto index = static_cast<int>(i);
    const ExpertId id{.layer = index / header.num_experts, .expert = index % header.num_experts};
    shadows.push_back({.id = id, .rank = header.rank, .relative_error = header.shadow_errors[i]});
  }
  return placement.with_shadows(shadows);
}

}  // namespace skipper

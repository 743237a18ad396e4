// The levels as ranks know them: each in every form that it ever ran in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cluster/operating_point.h"
#include "engine/level_map.h"

namespace skipper {

// When layers stop skipping, the levels get new slots without them and the old ones stay: a token keeps the slot under which it
// first ran, and so its bits, whatever is switched later. Levels that skip nothing have one form. Rank 0, engine thread only.
class LevelSlots {
 public:
  explicit LevelSlots(const LevelTable& levels);

  // The operators' levels, without exempt layers. Those that only add to the levels before leave all slots as they are; others
  // start anew. The slots must be free.
  void set_levels(const LevelTable& levels, std::span<const uint16_t> places);
  // The slots that other exempt layers would take.
  size_t slots_missing(const ExemptLayers& exempt) const;
  // From now on levels run without skipping there. The slots must be free.
  void set_exempt(const ExemptLayers& exempt);

  // What ranks must have; its version rises with every change.
  const LevelTable& table() const { return table_; }
  const LevelMap& map() const { return map_; }
  const ExemptLayers& exempt() const { return exempt_; }

 private:
  OperatingPoint form_of(size_t level, const ExemptLayers& exempt) const;
  std::optional<size_t> find_slot(size_t level, const OperatingPoint& form) const;
  void map_level(size_t level);

  std::vector<OperatingPoint> levels_;  // as operators know them
  ExemptLayers exempt_;
  LevelTable table_;
  LevelMap map_;
};

}  // namespace skipper

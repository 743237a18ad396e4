#include "engine/level_slots.h"

#include <glog/logging.h>

#include <algorithm>

namespace skipper {

LevelSlots::LevelSlots(const LevelTable& levels) : levels_(levels.levels), table_(levels) {}

void LevelSlots::set_levels(const LevelTable& levels, std::span<const uint16_t> places) {
  CHECK_LE(levels.levels.size(), kMaxLevels);
  CHECK_EQ(places.size(), levels.levels.size());
  const bool goes_on = levels.levels.size() >= levels_.size() &&
                       std::equal(levels_.begin(), levels_.end(), levels.levels.begin());
  if (!goes_on) {
    table_.levels.clear();
    map_ = {};
  }
  levels_ = levels.levels;
  exempt_ = {};
  for (size_t level = 0; level < levels_.size(); ++level) map_level(level);
  std::ranges::copy(places, map_.place_of_level.begin());
  ++table_.version;
}

size_t LevelSlots::slots_missing(const ExemptLayers& exempt) const {
  size_t num_missing = 0;
  for (size_t level = 0; level < levels_.size(); ++level) num_missing += find_slot(level, form_of(level, exempt)) ? 0 : 1;
  return num_missing;
}

void LevelSlots::set_exempt(const ExemptLayers& exempt) {
  exempt_ = exempt;
  for (size_t level = 0; level < levels_.size(); ++level) map_level(level);
  ++table_.version;
}

OperatingPoint LevelSlots::form_of(size_t level, const ExemptLayers& exempt) const {
  OperatingPoint form = levels_[level];
  if (!form.skips_nothing()) form.exempt_layers = exempt;
  return form;
}

// Not those of another level with the same numbers: its requests would be told that other level.
std::optional<size_t> LevelSlots::find_slot(size_t level, const OperatingPoint& form) const {
  for (size_t slot = 0; slot < table_.levels.size(); ++slot) {
    if (map_.level_of_slot[slot] == level && table_.levels[slot] == form) return slot;
  }
  return std::nullopt;
}

void LevelSlots::map_level(size_t level) {
  OperatingPoint form = form_of(level, exempt_);
  const size_t slot = find_slot(level, form).value_or(table_.levels.size());
  map_.slot_of_level[level] = static_cast<uint8_t>(slot);
  if (slot < table_.levels.size()) return;
  CHECK_LT(slot, kMaxLevels);
  map_.level_of_slot[slot] = static_cast<uint8_t>(level);
  table_.levels.push_back(std::move(form));
}

}  // namespace skipper

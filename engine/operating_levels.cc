#include "engine/operating_levels.h"

#include <glog/logging.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "engine/level_map.h"
#include "engine/level_order.h"

namespace skipper {

OperatingLevels::OperatingLevels(const LevelTable& table, uint8_t level)
    : in_force_{.table = table, .level = level, .places = places_of(table.levels, table.levels.size())},
      wanted_table_(table),
      wanted_places_(in_force_.places),
      num_ladder_levels_(table.levels.size()),
      wanted_level_(level) {}

OperatingState OperatingLevels::in_force() const {
  const std::lock_guard lock(mutex_);
  return in_force_;
}

int OperatingLevels::num_levels() const {
  const std::lock_guard lock(mutex_);
  return in_force_.table.num_levels();
}

uint8_t OperatingLevels::level() const {
  const std::lock_guard lock(mutex_);
  return in_force_.level;
}

std::vector<uint16_t> OperatingLevels::places() const {
  const std::lock_guard lock(mutex_);
  return in_force_.places;
}

int64_t OperatingLevels::num_changes() const {
  const std::lock_guard lock(mutex_);
  return num_changes_;
}

uint64_t OperatingLevels::set_table(LevelTable table) {
  CHECK(!table.levels.empty() && table.levels.size() <= kMaxLevels) << table.levels.size();
  const std::lock_guard lock(mutex_);
  table.version = wanted_table_.version + 1;
  wanted_table_ = std::move(table);
  num_ladder_levels_ = wanted_table_.levels.size();
  wanted_places_ = places_of(wanted_table_.levels, num_ladder_levels_);
  claimed_slots_ = 0;
  if (wanted_level_ >= wanted_table_.levels.size()) wanted_level_ = 0;
  return ++last_change_;
}

uint64_t OperatingLevels::set_level(int64_t level) {
  const std::lock_guard lock(mutex_);
  if (level < 0 || level >= wanted_table_.num_levels()) {
    throw InvalidRequest("level: " + std::to_string(level) + " does not exist; the levels are 0 to " +
                             std::to_string(wanted_table_.num_levels() - 1),
                         "level");
  }
  wanted_level_ = static_cast<uint8_t>(level);
  return ++last_change_;
}

uint64_t OperatingLevels::append(OperatingPoint point) {
  const std::lock_guard lock(mutex_);
  std::vector<OperatingPoint>& levels = wanted_table_.levels;
  const auto same = static_cast<size_t>(std::find(levels.begin(), levels.end(), point) - levels.begin());
  if (same == levels.size() && same + claimed_slots_ >= kMaxLevels) {
    throw InvalidRequest("the table has " + std::to_string(kMaxLevels) + " levels and takes no more while the server runs; " +
                             "choose one of them with {\"level\": n}, or restart the server with a file of those still needed",
                         "");
  }
  if (same == levels.size()) {
    levels.push_back(std::move(point));
    wanted_places_ = places_of(levels, num_ladder_levels_);
    ++wanted_table_.version;
  }
  wanted_level_ = static_cast<uint8_t>(same);
  return ++last_change_;
}

bool OperatingLevels::claim_slots(size_t count) {
  const std::lock_guard lock(mutex_);
  if (wanted_table_.levels.size() + claimed_slots_ + count > kMaxLevels) return false;
  claimed_slots_ += count;
  return true;
}

void OperatingLevels::set_switched_off(std::vector<SwitchedOffLayer> layers) {
  const std::lock_guard lock(mutex_);
  in_force_.switched_off = std::move(layers);
}

bool OperatingLevels::wait_until_in_force(uint64_t change, std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  confirmed_.wait_for(lock, timeout, [&] { return closed_ || confirmed_change_ >= change; });
  return confirmed_change_ >= change;
}

OperatingLevels::Change OperatingLevels::take() const {
  const std::lock_guard lock(mutex_);
  Change change{.number = last_change_, .level = wanted_level_};
  if (wanted_table_.version == in_force_.table.version) return change;
  change.table = wanted_table_;
  change.places = wanted_places_;
  return change;
}

void OperatingLevels::confirm(const Change& change) {
  const std::lock_guard lock(mutex_);
  if (change.number == confirmed_change_) return;
  if (change.table) {
    in_force_.table = *change.table;
    in_force_.places = change.places;
  }
  num_changes_ += change.level != in_force_.level ? 1 : 0;
  in_force_.level = change.level;
  confirmed_change_ = change.number;
  confirmed_.notify_all();
}

void OperatingLevels::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  confirmed_.notify_all();
}

}  // namespace skipper

// The table of levels and the global one: operators set them at any time, the engine applies them between steps.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "cluster/operating_point.h"
#include "cluster/switched_off_layer.h"

namespace skipper {

struct OperatingState {
  LevelTable table;
  uint8_t level = 0;  // of requests that follow the global one
  std::vector<uint16_t> places = {};  // of the levels, as places_of() of engine/level_order.h says
  std::vector<SwitchedOffLayer> switched_off = {};
};

// Thread-safe. The table only grows by append(), so that tokens under way keep the meaning of their level.
class OperatingLevels {
 public:
  // What is in force at start; `level` is of the table.
  explicit OperatingLevels(const LevelTable& table, uint8_t level = 0);

  // What the engine took over last.
  OperatingState in_force() const;
  std::vector<uint16_t> places() const;
  int num_levels() const;
  uint8_t level() const;
  // Of the global level since start.
  int64_t num_changes() const;

  // Each returns a number for wait_until_in_force().
  // Another table; it must begin with the levels that running requests use. A global level that it lacks becomes 0.
  uint64_t set_table(LevelTable table);
  // Throws InvalidRequest when there is no such level.
  uint64_t set_level(int64_t level);
  // Makes `point` the global level: the level that has these numbers, or a new one. Throws InvalidRequest when the table is full.
  uint64_t append(OperatingPoint point);

  // False when the engine did not take it over within `timeout`, or has ended.
  bool wait_until_in_force(uint64_t change, std::chrono::milliseconds timeout) const;

  // Of the kMaxLevels that tokens can tell apart, `count` more are taken by forms of levels (engine/level_slots.h). False, and
  // nothing is taken, when there are not so many. Another table gives them back.
  bool claim_slots(size_t count);
  void set_switched_off(std::vector<SwitchedOffLayer> layers);

  // What a step applies.
  struct Change {
    uint64_t number = 0;
    uint8_t level = 0;
    std::optional<LevelTable> table = std::nullopt;  // when it is another one than before
    std::vector<uint16_t> places = {};               // of its levels
  };
  // Engine thread, before a step; after it, confirm().
  Change take() const;
  void confirm(const Change& change);
  // The engine takes over nothing more.
  void close();

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable confirmed_;
  OperatingState in_force_;
  int64_t num_changes_ = 0;
  LevelTable wanted_table_;
  std::vector<uint16_t> wanted_places_;
  size_t num_ladder_levels_;  // of the table before any was appended
  size_t claimed_slots_ = 0;
  uint8_t wanted_level_ = 0;
  uint64_t last_change_ = 0;
  uint64_t confirmed_change_ = 0;
  bool closed_ = false;
};

}  // namespace skipper

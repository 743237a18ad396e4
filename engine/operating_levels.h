// The table of levels and the global one: operators set them at any time, the engine applies them between steps.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>

#include "cluster/operating_point.h"

namespace skipper {

struct OperatingState {
  LevelTable table;
  uint8_t level = 0;  // of requests that follow the global one
};

// Thread-safe. The table only grows by append(), so that tokens under way keep the meaning of their level.
class OperatingLevels {
 public:
  // What is in force at start; `level` is of the table.
  explicit OperatingLevels(const LevelTable& table, uint8_t level = 0);

  // What the engine took over last.
  OperatingState in_force() const;
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

  // What a step applies.
  struct Change {
    uint64_t number = 0;
    uint8_t level = 0;
    std::optional<LevelTable> table;  // when it is another one than before
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
  uint8_t wanted_level_ = 0;
  uint64_t last_change_ = 0;
  uint64_t confirmed_change_ = 0;
  bool closed_ = false;
};

}  // namespace skipper

// How the levels that people name are found in the table that ranks have, and in what order they stand.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>

namespace skipper {

// A token carries its level in one byte.
inline constexpr size_t kMaxLevels = 256;

// A level is a number that operators and requests use; a slot is a row of the LevelTable of the ranks. They are the same until
// some layers of a level stop skipping (engine/level_slots.h).
struct LevelMap {
  std::array<uint8_t, kMaxLevels> slot_of_level = ascending<uint8_t>();
  std::array<uint8_t, kMaxLevels> level_of_slot = ascending<uint8_t>();
  std::array<uint16_t, kMaxLevels> place_of_level = ascending<uint16_t>();  // engine/level_order.h

  // The level of a request that follows the global one, up to its ceiling.
  uint8_t level_under(uint8_t ceiling, uint8_t global_level) const {
    return place_of_level[global_level] <= place_of_level[ceiling] ? global_level : ceiling;
  }

 private:
  template <typename T>
  static std::array<T, kMaxLevels> ascending() {
    std::array<T, kMaxLevels> numbers;
    std::iota(numbers.begin(), numbers.end(), T{0});
    return numbers;
  }
};

}  // namespace skipper

// What the all-to-all moved and what skipping saved, counted where it is sent.
#pragma once

#include <array>
#include <cstdint>

#include "cluster/token_class.h"

namespace skipper {

enum class Direction : uint8_t { kDispatch = 0, kCombine = 1 };
inline constexpr int kNumDirections = 2;

// Sums since start of one rank; plain data, so that a step's difference can be sent and added up.
// Payload bytes: hidden rows, once per (token, destination rank) and direction. Wire bytes: payload plus metadata (the pair
// lists and the exchange of counts). Saved: payload bytes the same tokens would have cost without skipping, minus the sent
// ones. Bytes are counted by the rank that sends them; the class is the token's. Combine bytes are counted at the
// destination, which sends them.
struct TrafficCounters {
  template <typename T>
  using ByHopAndClass = std::array<std::array<T, kNumTokenClasses>, kNumHops>;

  std::array<ByHopAndClass<int64_t>, kNumDirections> payload_bytes{};
  std::array<ByHopAndClass<int64_t>, kNumDirections> saved_bytes{};
  std::array<std::array<int64_t, kNumHops>, kNumDirections> wire_bytes{};
  std::array<int64_t, kNumTokenClasses> pairs_run{};
  std::array<int64_t, kNumTokenClasses> pairs_skipped{};
  std::array<int64_t, kNumTokenClasses> pairs_on_shadows{};  // of those that run

  TrafficCounters& operator+=(const TrafficCounters& other);
  TrafficCounters operator-(const TrafficCounters& other) const;
  int64_t total_payload_bytes(Hop hop) const;
};

}  // namespace skipper

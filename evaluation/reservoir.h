// Keeps some of what comes, each with the same chance, without knowing how much will come (Vitter 1985, algorithm R).
#pragma once

#include <cstdint>
#include <optional>
#include <random>

namespace skipper {

// The place, below `most`, of the next item after `num_seen` others, which is counted; nothing: it is not kept. A place that is
// free is always the next one.
inline std::optional<int64_t> reservoir_place(int64_t& num_seen, int64_t most, std::mt19937_64& random) {
  const int64_t index = num_seen++;
  if (index < most) return index;
  const auto place = static_cast<int64_t>(random() % static_cast<uint64_t>(num_seen));
  return place < most ? std::optional(place) : std::nullopt;
}

}  // namespace skipper

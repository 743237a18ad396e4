// The level a chat request asks for: "skipper" and "service_tier" of its body.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "engine/generation_request.h"
#include "frontend/request_fields.h"

namespace skipper {

// Levels there are and levels a request may have.
struct LevelLimits {
  int highest_level = 0;  // of the table now
  const std::map<std::string, int64_t>& service_tiers;  // tier → highest level of its requests
  // Of each level, what ceilings compare: a level that was uploaded may stand below others of the file. Missing: its number.
  std::span<const uint16_t> places = {};

  int64_t place_of(int64_t level) const {
    return level < static_cast<int64_t>(places.size()) ? places[static_cast<size_t>(level)] : level;
  }
};

struct RequestedLevel {
  uint8_t level = UINT8_MAX;
  LevelChoice choice = LevelChoice::kGlobal;

  bool operator==(const RequestedLevel&) const = default;
};

// {"skipper": {"level": n}} runs at level n; {"skipper": {"full_quality": true}} at level 0; anything else follows the engine's
// level, up to the ceiling of the request's tier. Throws InvalidRequest naming the field: a level above the ceiling (which is
// named too), an unknown tier, an unknown key of "skipper".
RequestedLevel parse_requested_level(const RequestFields& fields, const LevelLimits& limits);

}  // namespace skipper

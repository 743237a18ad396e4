#include "launcher/point_identity.h"

#include <cstdint>
#include <nlohmann/json.hpp>

namespace skipper {
namespace {

// FNV-1a, 64 bits: says whether points are the same, no more.
uint64_t hash_of(const std::string& text) {
  uint64_t state = 0xcbf29ce484222325u;
  for (const char c : text) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return state;
}

std::string name_or_none(const std::string& identity) { return identity.empty() ? "without skipping" : "at level " + identity; }

}  // namespace

std::string identity_of(const OperatingPoint& point) {
  if (point.skips_nothing()) return "";
  const uint64_t hash = hash_of(to_json(point).dump());
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[(hash >> shift) & 15];
  return text;
}

std::optional<std::string> point_mismatch(const std::optional<std::string>& profiled, const OperatingPoint& served) {
  const std::string here = identity_of(served);
  if (!profiled || *profiled == here) return std::nullopt;
  return "the plan's profile was measured " + name_or_none(*profiled) + ", but requests run " + name_or_none(here) +
         " unless they choose another: its predicted loss may not hold; run 'skipper profile' with this --operating_point and "
         "--level";
}

}  // namespace skipper

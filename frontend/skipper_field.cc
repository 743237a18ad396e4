#include "frontend/skipper_field.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

namespace skipper {
namespace {

// OpenAI's tiers are always understood, others when the server's configuration knows them.
constexpr std::array<std::string_view, 4> kOpenAiTiers = {"auto", "default", "flex", "priority"};

struct Ceiling {
  int64_t level = 0;
  std::string reason;  // for messages
};

// A request without a tier is one of "auto".
Ceiling ceiling_of(const RequestFields& fields, const LevelLimits& limits) {
  const std::string tier = fields.string("service_tier").value_or("auto");
  const auto entry = limits.service_tiers.find(tier);
  if (entry != limits.service_tiers.end()) {
    return {.level = std::min<int64_t>(entry->second, limits.highest_level), .reason = "the ceiling of service_tier " + tier};
  }
  if (std::ranges::find(kOpenAiTiers, tier) != kOpenAiTiers.end()) {
    return {.level = UINT8_MAX, .reason = ""};
  }
  std::string names = "auto, default, flex, priority";
  for (const auto& [name, level] : limits.service_tiers) names += ", " + name;
  fields.fail("service_tier", "no such tier; this server has " + names);
}

void reject_unknown_keys(const RequestFields& skipper, const nlohmann::json& object) {
  for (const auto& [key, value] : object.items()) {
    if (key != "level" && key != "full_quality") skipper.fail(key.substr(0, 100), "no such key; expected level or full_quality");
  }
}

uint8_t own_level(const RequestFields& skipper, int64_t level, const Ceiling& ceiling, const LevelLimits& limits) {
  if (level > limits.highest_level) {
    skipper.fail("level", std::to_string(level) + " is above this server's ceiling of " + std::to_string(limits.highest_level));
  }
  if (limits.place_of(level) > limits.place_of(ceiling.level)) {
    skipper.fail("level", std::to_string(level) + " is above " + ceiling.reason + ", which is " + std::to_string(ceiling.level));
  }
  return static_cast<uint8_t>(level);
}

}  // namespace

RequestedLevel parse_requested_level(const RequestFields& fields, const LevelLimits& limits) {
  const Ceiling ceiling = ceiling_of(fields, limits);
  const RequestedLevel following{.level = static_cast<uint8_t>(ceiling.level), .choice = LevelChoice::kGlobal};
  if (!fields.has("skipper")) return following;
  const RequestFields skipper(fields.raw("skipper"), "skipper");
  reject_unknown_keys(skipper, fields.raw("skipper"));
  const auto level = skipper.integer("level", {0, INT64_MAX});
  if (skipper.boolean("full_quality").value_or(false)) {
    if (level.value_or(0) != 0) skipper.fail("level", "contradicts \"full_quality\": true; leave one out");
    return {.level = 0, .choice = LevelChoice::kOwn};
  }
  if (!level) return following;
  return {.level = own_level(skipper, *level, ceiling, limits), .choice = LevelChoice::kOwn};
}

}  // namespace skipper

#include "frontend/policy_endpoint.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "frontend/json_document.h"
#include "frontend/request_fields.h"

namespace skipper {
namespace {

using nlohmann::json;

constexpr JsonLimits kLimits{.max_depth = 2, .max_values = 1 << 16};
constexpr double kDefaultDeadline = 60.0;

constexpr std::array<std::string_view, 4> kKeys = {"policy", "memory", "deadline_seconds", "extra_memory"};

// "210M", or the sizes of a list with commas between them.
std::string parse_memory(const RequestFields& fields) {
  const json& memory = fields.raw("memory");
  if (!memory.is_array()) return fields.string("memory").value_or("");
  std::string sizes;
  for (const json& size : memory) {
    if (!size.is_string()) fields.fail("memory", "expected sizes such as \"210M\", found " + json_kind(size) + " in it");
    if (!sizes.empty()) sizes += ',';
    sizes += size.get_ref<const std::string&>();
  }
  if (sizes.empty()) fields.fail("memory", "is an empty list");
  return sizes;
}

json staging_json(const SwitchState& state) {
  if (state.staged_policy.empty()) return nullptr;
  return {{"policy", state.staged_policy},
          {"ranks_ready", state.ranks_ready},
          {"waits_for_tier", state.waits_for_tier.empty() ? json(nullptr) : json(state.waits_for_tier)}};
}

json memory_json(const std::vector<SwitchMemory>& ranks) {
  json list = json::array();
  for (const SwitchMemory& rank : ranks) {
    list.push_back({{"before", rank.before}, {"with_both", rank.with_both}, {"after", rank.after}});
  }
  return list;
}

json last_json(const SwitchRecord& last) {
  if (last.request == 0) return nullptr;
  return {{"policy", last.policy},
          {"failure", last.failure.empty() ? json(nullptr) : json(last.failure)},
          {"step", last.step},
          {"moved_bytes", last.moved_bytes},
          {"staging_seconds", last.seconds},
          {"freed_seconds", last.freed_seconds ? json(*last.freed_seconds) : json(nullptr)},
          {"resident_bytes", memory_json(last.memory)}};
}

json versions_json(const std::vector<ServedVersion>& versions) {
  json list = json::array();
  for (const ServedVersion& one : versions) {
    list.push_back({{"version", one.version}, {"policy", one.policy.name}, {"step", one.step}});
  }
  return list;
}

}  // namespace

HttpResponse policy_response(const PolicyReport& report) {
  const SwitchState& state = report.state;
  const json body = {{"policy", state.policy},
                     {"predicted_loss", state.predicted_loss},
                     {"policies", report.policies},
                     {"version", state.version},
                     {"staging", staging_json(state)},
                     {"last", last_json(state.last)},
                     {"switches", state.num_switches},
                     {"failures", state.num_failures},
                     {"moved_bytes", state.moved_bytes},
                     {"staging_seconds", state.staging_seconds},
                     {"versions", versions_json(report.versions)}};
  return {.body = body.dump()};
}

PolicyRequest parse_policy_request(const std::string& body) {
  const json document = parse_json_document(body, kLimits);
  const RequestFields fields(document, "");
  for (const auto& [key, value] : document.items()) {
    if (std::ranges::find(kKeys, key) != kKeys.end()) continue;
    fields.fail(key.substr(0, 100), "no such key; send {\"policy\": NAME} or {\"memory\": SIZE}, with \"deadline_seconds\" and "
                                    "\"extra_memory\" if it needs them");
  }
  if (fields.has("policy") && fields.has("memory")) fields.fail("memory", "does not go with policy; send one of them");
  const double seconds = fields.number("deadline_seconds", {0.001, 3600.0}).value_or(kDefaultDeadline);
  PolicyRequest request;
  request.memory = parse_memory(fields);
  request.deadline = std::chrono::milliseconds(static_cast<int64_t>(1e3 * seconds + 0.5));
  if (request.memory.empty()) request.policy = fields.required_string("policy");
  request.extra_memory = fields.string("extra_memory").value_or("");
  return request;
}

}  // namespace skipper

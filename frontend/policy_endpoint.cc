#include "frontend/policy_endpoint.h"

#include <cstdint>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "frontend/json_document.h"
#include "frontend/request_fields.h"

namespace skipper {
namespace {

using nlohmann::json;

constexpr JsonLimits kLimits{.max_depth = 2, .max_values = 16};
constexpr double kDefaultDeadline = 60.0;

json staging_json(const SwitchState& state) {
  if (state.staged_policy.empty()) return nullptr;
  return {{"policy", state.staged_policy}, {"ranks_ready", state.ranks_ready}};
}

json last_json(const SwitchRecord& last) {
  if (last.request == 0) return nullptr;
  return {{"policy", last.policy},
          {"failure", last.failure.empty() ? json(nullptr) : json(last.failure)},
          {"step", last.step},
          {"moved_bytes", last.moved_bytes},
          {"staging_seconds", last.seconds}};
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
    if (key == "policy" || key == "deadline_seconds") continue;
    fields.fail(key.substr(0, 100), "no such key; send {\"policy\": NAME}, with \"deadline_seconds\" if it must not take longer");
  }
  const double seconds = fields.number("deadline_seconds", {0.001, 3600.0}).value_or(kDefaultDeadline);
  return {.policy = fields.required_string("policy"),
          .deadline = std::chrono::milliseconds(static_cast<int64_t>(1e3 * seconds + 0.5))};
}

}  // namespace skipper

#include "frontend/guard_endpoint.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "frontend/json_document.h"

namespace skipper {
namespace {

using nlohmann::json;

constexpr JsonLimits kLimits{.max_depth = 2, .max_values = 16};

json text_or_null(const std::string& text) { return text.empty() ? json(nullptr) : json(text); }

json breach_json(const GuardState& state) {
  if (!state.breach) return nullptr;
  const GuardBreach& breach = *state.breach;
  return {{"step", state.rollback_step},     {"text", breach.text()},           {"measured", breach.measured},
          {"threshold", breach.threshold}, {"samples", breach.num_samples}};
}

json worst_json(const GuardReading& worst) {
  if (!worst.has_expert()) return nullptr;
  return {{"moe_layer", worst.moe_layer},
          {"expert", worst.expert},
          {"relative_error", worst.relative_error},
          {"allowed_error", worst.allowed_error},
          {"rows", worst.num_rows}};
}

}  // namespace

HttpResponse guard_response(const GuardState& state) {
  const json body = {{"serves", state.serving == ExpertSet::kReference ? "reference" : state.served},
                     {"version", state.serving == ExpertSet::kReference ? kReferenceVersion : state.version},
                     {"term", state.term},
                     {"rollbacks", state.num_rollbacks},
                     {"breach", breach_json(state)},
                     {"returns_to", text_or_null(state.returns_to)},
                     {"stays", text_or_null(state.stays)},
                     {"relative_error", state.relative_error},
                     {"rows", state.num_rows},
                     {"worst", worst_json(state.worst)},
                     {"kl", state.mean_kl},
                     {"scored_tokens", state.num_scored_tokens}};
  return {.body = body.dump()};
}

void check_arming(const std::string& body) {
  const json document = parse_json_document(body, kLimits);
  if (document != json{{"arm", true}}) {
    throw InvalidRequest("the body: expected {\"arm\": true}, found " + document.dump().substr(0, 100), "arm");
  }
}

}  // namespace skipper

#include "frontend/admin_listener.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "frontend/guard_endpoint.h"
#include "frontend/http_error.h"
#include "frontend/json_document.h"
#include "frontend/request_fields.h"

namespace skipper {

using nlohmann::json;

namespace {

constexpr const char* kOperatingPointPath = "/admin/operating_point";
constexpr const char* kGuardPath = "/admin/guard";
constexpr const char* kPolicyPath = "/admin/policy";
constexpr JsonLimits kLimits{.max_depth = 8, .max_values = 1 << 20};
constexpr const char* kBodyName = "operating point";  // in place of a file's name

json level_json(const AdminContext& context, const OperatingReport& report, size_t level) {
  json entry = to_json(report.table.levels[level]);
  const bool is_measured = level < context.measured.size() && !context.measured[level].empty();
  if (is_measured) entry["measured"] = json::parse(context.measured[level]);
  return entry;
}

json layer_json(const SwitchedOffLayer& layer) {
  return {{"layer", layer.moe_layer},
          {"phase", kTokenPhaseNames[static_cast<size_t>(layer.phase)]},
          {"deciding_ms", 1e3 * layer.cost_seconds},
          {"saved_ms", 1e3 * layer.saving_seconds}};
}

HttpResponse report_response(const AdminContext& context, const OperatingReport& report) {
  json levels = json::array();
  for (size_t level = 0; level < report.table.levels.size(); ++level) levels.push_back(level_json(context, report, level));
  json switched_off = json::array();
  for (const SwitchedOffLayer& layer : report.switched_off) switched_off.push_back(layer_json(layer));
  const json body = {{"level", report.level},
                     {"levels", std::move(levels)},
                     {"places", report.places},
                     {"switched_off", std::move(switched_off)},
                     {"table_version", report.table.version}};
  return {.body = body.dump()};
}

int64_t parse_level(const json& document) {
  const RequestFields fields(document, "");
  for (const auto& [key, value] : document.items()) {
    if (key != "level") fields.fail(key.substr(0, 100), "does not go with level; send {\"level\": n} or a whole operating point");
  }
  return *fields.integer("level", {0, INT64_MAX});
}

// As GET shows points: the version may be left out, and what was measured elsewhere is not kept.
OperatingPoint parse_point(json document, const AdminContext& context) {
  document.emplace("version", 1);
  document.erase("measured");
  if (document.contains("levels")) {
    throw InvalidRequest("levels: one operating point at a time; send an entry of the list", "levels");
  }
  try {
    return read_levels(document, kBodyName, context.model, context.world).levels.back();
  } catch (const InvalidFile& error) {
    throw InvalidRequest(error.what(), "");
  }
}

OperatingReport change(const std::string& body, const AdminContext& context) {
  json document = parse_json_document(body, kLimits);
  if (!document.is_object()) throw InvalidRequest("the body: expected an object, found " + json_kind(document), "");
  if (document.contains("level") && !document["level"].is_null()) return context.hooks.set_level(parse_level(document));
  return context.hooks.append(parse_point(std::move(document), context));
}

using AdminResponder = std::function<HttpResponse(const HttpRequest&, const AdminContext&)>;

struct AdminRoute {
  std::string method;
  std::string path;
  AdminResponder respond;
};

// The route behind the key.
Endpoint locked(AdminRoute route, std::shared_ptr<const AdminContext> context) {
  return {.method = std::move(route.method),
          .path = std::move(route.path),
          .work = Endpoint::Work::kLong,
          .handle = [context = std::move(context),
                     respond = std::move(route.respond)](const HttpRequest& request) -> EndpointResult {
            if (context->key.opens_for(request.authorization)) return respond(request, *context);
            return error_response(http_error(401, "the admin key is missing or wrong; send it as 'Authorization: Bearer KEY'"));
          }};
}

}  // namespace

FrontendConfig admin_frontend_config(int port) {
  FrontendConfig config;
  config.host = "127.0.0.1";
  config.port = port;
  config.port_flag = "--admin_port";
  config.max_connections = 16;
  config.max_body_bytes = size_t{4} << 20;
  config.max_inflight_body_bytes = size_t{16} << 20;
  return config;
}

EndpointTable make_admin_endpoints(std::shared_ptr<const AdminContext> context) {
  const auto get = [](const HttpRequest&, const AdminContext& admin) { return report_response(admin, admin.hooks.report()); };
  const auto post = [](const HttpRequest& request, const AdminContext& admin) {
    return report_response(admin, change(request.body, admin));
  };
  const auto get_guard = [](const HttpRequest&, const AdminContext& admin) { return guard_response(admin.hooks.guard_state()); };
  const auto arm_guard = [](const HttpRequest& request, const AdminContext& admin) {
    check_arming(request.body);
    return guard_response(admin.hooks.arm_guard());
  };
  const auto get_policy = [](const HttpRequest&, const AdminContext& admin) { return policy_response(admin.hooks.policies()); };
  const auto set_policy = [](const HttpRequest& request, const AdminContext& admin) {
    return policy_response(admin.hooks.switch_policy(parse_policy_request(request.body)));
  };
  return EndpointTable({locked({"GET", kOperatingPointPath, get}, context), locked({"POST", kOperatingPointPath, post}, context),
                        locked({"GET", kGuardPath, get_guard}, context), locked({"POST", kGuardPath, arm_guard}, context),
                        locked({"GET", kPolicyPath, get_policy}, context), locked({"POST", kPolicyPath, set_policy}, context)});
}

}  // namespace skipper

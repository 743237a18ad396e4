#include "frontend/endpoints.h"

#include <algorithm>

#include "frontend/admin_endpoints.h"

namespace skipper {
namespace {

Endpoint get(std::string path, std::function<HttpResponse()> respond) {
  return {.method = "GET",
          .path = std::move(path),
          .work = Endpoint::Work::kShort,
          .handle = [respond = std::move(respond)](const HttpRequest&) -> EndpointResult { return respond(); }};
}

Endpoint chat_completions(std::shared_ptr<const ServingContext> context) {
  return {.method = "POST",
          .path = "/v1/chat/completions",
          .work = Endpoint::Work::kLong,
          .handle = [context = std::move(context)](const HttpRequest& request) -> EndpointResult {
            return ChatCompletion::start(request, context);
          }};
}

}  // namespace

bool Endpoint::accepts(std::string_view request_method) const {
  return request_method == method || (method == "GET" && request_method == "HEAD");
}

const Endpoint* EndpointTable::find(std::string_view path, std::string_view method) const {
  for (const Endpoint& endpoint : endpoints_) {
    if (endpoint.path == path && endpoint.accepts(method)) return &endpoint;
  }
  return nullptr;
}

bool EndpointTable::has_path(std::string_view path) const { return !allowed_methods(path).empty(); }

std::string EndpointTable::allowed_methods(std::string_view path) const {
  std::string methods;
  for (const Endpoint& endpoint : endpoints_) {
    if (endpoint.path != path) continue;
    methods += (methods.empty() ? "" : ", ") + (endpoint.method == "GET" ? "GET, HEAD" : endpoint.method);
  }
  return methods;
}

std::string EndpointTable::paths() const {
  std::vector<std::string> paths;
  for (const Endpoint& endpoint : endpoints_) {
    if (std::ranges::find(paths, endpoint.path) == paths.end()) paths.push_back(endpoint.path);
  }
  std::string list;
  for (const std::string& path : paths) list += (list.empty() ? "" : ", ") + path;
  return list;
}

EndpointTable make_endpoints(std::shared_ptr<const ServingContext> context) {
  const std::chrono::milliseconds stall_timeout = context->config.stall_timeout;
  return EndpointTable({
      chat_completions(context),
      get("/v1/models", [context] { return models_response(context->model); }),
      get("/live", [] { return live_response(); }),
      get("/ready", [context] { return ready_response(context->engine.status()); }),
      get("/health", [context, stall_timeout] { return health_response(context->engine.status(), stall_timeout); }),
      get("/metrics", [context] { return metrics_response(context->metrics); }),
      get("/version", [] { return version_response(); }),
  });
}

}  // namespace skipper

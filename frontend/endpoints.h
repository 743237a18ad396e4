// Which path is answered by what.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "frontend/chat_completions.h"
#include "frontend/http_message.h"
#include "frontend/serving_context.h"

namespace skipper {

// A whole response, or one that arrives token by token.
using EndpointResult = std::variant<HttpResponse, std::shared_ptr<ChatCompletion>>;

struct Endpoint {
  // Short work is done at once on the connection's thread, so that probes are answered while all processor threads are busy.
  enum class Work : uint8_t { kShort, kLong };

  std::string method;  // GET answers HEAD too
  std::string path;
  Work work = Work::kShort;
  std::function<EndpointResult(const HttpRequest&)> handle;  // throws what http_error_from() understands

  bool accepts(std::string_view request_method) const;
};

class EndpointTable {
 public:
  explicit EndpointTable(std::vector<Endpoint> endpoints) : endpoints_(std::move(endpoints)) {}

  // Null when nothing answers this method of this path.
  const Endpoint* find(std::string_view path, std::string_view method) const;
  bool has_path(std::string_view path) const;
  // The value of a 405's Allow header.
  std::string allowed_methods(std::string_view path) const;
  // Each once, for messages.
  std::string paths() const;

 private:
  std::vector<Endpoint> endpoints_;
};

EndpointTable make_endpoints(std::shared_ptr<const ServingContext> context);

}  // namespace skipper

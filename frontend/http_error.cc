#include "frontend/http_error.h"

#include <glog/logging.h>

#include <new>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

constexpr int kRetryAfterSeconds = 1;

std::string type_of_status(int status) {
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

std::string code_of_status(int status) {
  switch (status) {
    case 401: return "invalid_api_key";
    case 404: return "not_found";
    case 405: return "method_not_allowed";
    case 413: return "request_too_large";
    case 429: return "queue_full";
    case 503: return "unavailable";
    default: return "";
  }
}

HttpError refused_field(const InvalidRequest& error) {
  HttpError result = http_error(error.code() == "model_not_found" ? 404 : 400, error.what());
  result.param = error.param();
  result.code = error.code();
  return result;
}

nlohmann::json or_null(const std::string& text) { return text.empty() ? nlohmann::json() : nlohmann::json(text); }

}  // namespace

HttpError http_error(int status, std::string message) {
  return {.status = status, .type = type_of_status(status), .message = std::move(message), .param = "",
          .code = code_of_status(status), .allow = ""};
}

HttpError http_error_from(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const InvalidRequest& e) {
    return refused_field(e);
  } catch (const ResourceExhausted& e) {
    return http_error(429, e.what());
  } catch (const Cancelled& e) {
    return http_error(503, e.what());
  } catch (const CommError& e) {
    LOG(ERROR) << "event=request_failed where=" << e.location() << " error=\"" << e.what() << '"';
    return http_error(503, "the group of ranks failed; try again when /ready answers 200");
  } catch (const Error& e) {
    LOG(ERROR) << "event=request_failed where=" << e.location() << " error=\"" << e.what() << '"';
  } catch (const std::bad_alloc&) {
    LOG(ERROR) << "event=request_failed error=\"out of memory\"";
    return http_error(503, "out of memory for this request; try again later or send less");
  } catch (const std::exception& e) {
    LOG(ERROR) << "event=request_failed error=\"" << e.what() << '"';
  }
  return http_error(500, "internal error; the server's log tells more under this request's X-Request-Id");
}

std::string error_json(const HttpError& error) {
  const nlohmann::json body = {{"error",
                                {{"message", error.message},
                                 {"type", error.type},
                                 {"param", or_null(error.param)},
                                 {"code", or_null(error.code)}}}};
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

HttpResponse error_response(const HttpError& error) {
  HttpResponse response{.status = error.status, .body = error_json(error)};
  if (!error.allow.empty()) response.headers.emplace_back("Allow", error.allow);
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (error.status == 429 || error.status == 503) {
    response.headers.emplace_back("Retry-After", std::to_string(kRetryAfterSeconds));
  }
  return response;
}

}  // namespace skipper

// One HTTP request as endpoints see it, and the whole response that most of them give.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace skipper {

struct HttpRequest {
  std::string method;
  std::string path;  // the target without its query
  std::string body;
  std::string authorization = "";  // the header's value
  std::string request_id;  // printable ASCII, at most 128 characters
  std::chrono::steady_clock::time_point arrival;  // when its last byte had come
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = "";
  std::vector<std::pair<std::string, std::string>> headers = {};  // beyond Content-Type, Content-Length, Connection, X-Request-Id
};

}  // namespace skipper

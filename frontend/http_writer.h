// Writes HTTP/1.x responses to one connection: whole ones, and server-sent events as they come.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <string>

#include "frontend/connection_deadline.h"
#include "frontend/frontend_config.h"
#include "frontend/http_message.h"

namespace skipper {

enum class AfterResponse : uint8_t { kKeepAlive, kClose };
enum class BodyPresence : uint8_t { kBody, kHeaderOnly };  // kHeaderOnly: the answer to HEAD

struct ResponseFraming {
  std::string request_id;
  AfterResponse after = AfterResponse::kClose;
  BodyPresence body = BodyPresence::kBody;
  bool chunked = true;  // false for HTTP/1.0, whose streams end with the connection
};

// All functions return false when the client did not take the bytes in time or is gone.
class HttpWriter {
 public:
  HttpWriter(boost::asio::ip::tcp::socket& socket, const FrontendConfig& config);

  boost::asio::awaitable<bool> write_response(const HttpResponse& response, const ResponseFraming& framing);

  boost::asio::awaitable<bool> begin_events(const ResponseFraming& framing);
  boost::asio::awaitable<bool> write_events(const std::string& events, const ResponseFraming& framing);
  boost::asio::awaitable<bool> end_events(const ResponseFraming& framing);

 private:
  boost::asio::ip::tcp::socket& socket_;
  const FrontendConfig& config_;
  ConnectionDeadline deadline_;
};

}  // namespace skipper

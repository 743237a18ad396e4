#include "frontend/http_writer.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/chunk_encode.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/serializer.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <tuple>

#include "base/build_config.h"
#include "frontend/await.h"

namespace skipper {

namespace net = boost::asio;
namespace http = boost::beast::http;

namespace {

template <typename Body>
void set_common_fields(http::response<Body>& message, const ResponseFraming& framing) {
  message.set(http::field::server, std::string("skipper/") + kVersion);
  message.set("X-Request-Id", framing.request_id);
  message.keep_alive(framing.after == AfterResponse::kKeepAlive);
  if (framing.after == AfterResponse::kClose) message.set(http::field::connection, "close");
}

}  // namespace

HttpWriter::HttpWriter(net::ip::tcp::socket& socket, const FrontendConfig& config)
    : socket_(socket), config_(config), deadline_(socket) {}

net::awaitable<bool> HttpWriter::write_response(const HttpResponse& response, const ResponseFraming& framing) {
  http::response<http::string_body> message(static_cast<http::status>(response.status), 11);
  set_common_fields(message, framing);
  message.set(http::field::content_type, response.content_type);
  for (const auto& [name, value] : response.headers) message.set(name, value);
  message.content_length(response.body.size());
  const bool has_body = framing.body == BodyPresence::kBody;
  if (has_body) message.body() = response.body;

  http::response_serializer<http::string_body> serializer(message);
  deadline_.start(config_.write_timeout);
  boost::system::error_code error;
  if (has_body) std::tie(error, std::ignore) = co_await http::async_write(socket_, serializer, kAwait);
  else std::tie(error, std::ignore) = co_await http::async_write_header(socket_, serializer, kAwait);
  deadline_.stop();
  co_return !error;
}

net::awaitable<bool> HttpWriter::begin_events(const ResponseFraming& framing) {
  http::response<http::empty_body> message(http::status::ok, 11);
  set_common_fields(message, framing);
  message.set(http::field::content_type, "text/event-stream; charset=utf-8");
  message.set(http::field::cache_control, "no-cache");
  message.set("X-Accel-Buffering", "no");  // a proxy must not collect events
  message.chunked(framing.chunked);

  http::response_serializer<http::empty_body> serializer(message);
  deadline_.start(config_.write_timeout);
  const auto result = co_await http::async_write_header(socket_, serializer, kAwait);
  deadline_.stop();
  co_return !std::get<0>(result);
}

net::awaitable<bool> HttpWriter::write_events(const std::string& events, const ResponseFraming& framing) {
  deadline_.start(config_.write_timeout);
  const net::const_buffer bytes = net::buffer(events);
  boost::system::error_code error;
  if (framing.chunked) std::tie(error, std::ignore) = co_await net::async_write(socket_, http::make_chunk(bytes), kAwait);
  else std::tie(error, std::ignore) = co_await net::async_write(socket_, bytes, kAwait);
  deadline_.stop();
  co_return !error;
}

net::awaitable<bool> HttpWriter::end_events(const ResponseFraming& framing) {
  if (!framing.chunked) co_return true;
  deadline_.start(config_.write_timeout);
  const auto result = co_await net::async_write(socket_, http::make_chunk_last(), kAwait);
  deadline_.stop();
  co_return !std::get<0>(result);
}

}  // namespace skipper

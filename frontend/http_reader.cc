#include "frontend/http_reader.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <tuple>

#include "frontend/await.h"
#include "frontend/request_id.h"

namespace skipper {

namespace net = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using Outcome = IncomingRequest::Outcome;

namespace {

constexpr size_t kFirstReadBytes = 4096;

bool is_http_error(const error_code& error) {
  return error.category() == http::make_error_code(http::error::bad_method).category();
}

// The client went away, in the middle of a request or before it.
bool is_gone(const error_code& error) {
  return !is_http_error(error) || error == http::error::end_of_stream || error == http::error::partial_message;
}

std::string standard_text(int status) {
  switch (status) {
    case 400: return "the request is not valid HTTP/1.1";
    case 408: return "the request did not arrive in time";
    case 413: return "the body is too large";
    case 414: return "the request target is too long";
    case 417: return "the only expectation supported is 100-continue";
    case 431: return "the header is too large";
    case 501: return "the only transfer coding supported is chunked";
    default: return "too much is being uploaded; try again later";
  }
}

void refuse(IncomingRequest& incoming, int status, const std::string& detail = "") {
  incoming.outcome = Outcome::kRefused;
  incoming.keep_alive = false;
  incoming.error = http_error(status, standard_text(status) + detail);
}

std::string limit_text(size_t limit) { return ": the limit is " + std::to_string(limit) + " bytes"; }

}  // namespace

struct HttpReader::Parser : http::request_parser<http::string_body> {
  using http::request_parser<http::string_body>::request_parser;
  const auto& header() const { return get(); }
  std::string field(http::field name) const { return std::string(header()[name]); }
};

HttpReader::HttpReader(net::ip::tcp::socket& socket, boost::beast::flat_buffer& buffer, const FrontendConfig& config,
                       BodyBudget& budget)
    : socket_(socket), buffer_(buffer), config_(config), budget_(budget), deadline_(socket) {}

net::awaitable<bool> HttpReader::wait_for_request() {
  if (buffer_.size() > 0) co_return true;
  deadline_.start(config_.idle_timeout);
  const auto [error, num_bytes] = co_await socket_.async_read_some(buffer_.prepare(kFirstReadBytes), kAwait);
  deadline_.stop();
  buffer_.commit(num_bytes);
  co_return !error;
}

net::awaitable<IncomingRequest> HttpReader::read() {
  IncomingRequest incoming;
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(config_.max_header_bytes));
  parser.body_limit(boost::none);  // checked by hand, so that a declared length is refused before the header is taken apart
  co_await read_header(parser, incoming);
  if (incoming.outcome == Outcome::kRequest) co_await answer_expectation(parser, incoming);
  if (incoming.outcome == Outcome::kRequest) co_await read_body(parser, incoming);
  deadline_.stop();
  if (incoming.outcome != Outcome::kRequest) co_return incoming;
  incoming.request.body = std::move(parser.get().body());
  incoming.request.arrival = std::chrono::steady_clock::now();
  co_return incoming;
}

net::awaitable<void> HttpReader::read_header(Parser& parser, IncomingRequest& incoming) {
  deadline_.start(config_.header_timeout);
  const auto result = co_await http::async_read_header(socket_, buffer_, parser, kAwait);
  const error_code error = std::get<0>(result);
  describe(parser, incoming);
  if (error && !deadline_.expired() && is_gone(error)) co_return;
  if (error) {
    incoming.outcome = Outcome::kRefused;
    incoming.keep_alive = false;
    incoming.error = refuse_header(parser, error);
    co_return;
  }
  incoming.outcome = Outcome::kRequest;
  const int status = header_problem(parser);
  if (status == 413) refuse(incoming, status, limit_text(config_.max_body_bytes));
  else if (status != 0) refuse(incoming, status);
}

// What the parser itself refused, or the clock.
HttpError HttpReader::refuse_header(const Parser& parser, const error_code& error) const {
  if (deadline_.expired()) return http_error(408, standard_text(408));
  if (error != http::error::header_limit && error != http::error::buffer_overflow) return http_error(400, standard_text(400));
  const bool line_is_endless = parser.header().target().empty();
  if (line_is_endless) return http_error(414, standard_text(414) + limit_text(config_.max_target_bytes));
  return http_error(431, standard_text(431) + limit_text(config_.max_header_bytes));
}

// The status that refuses a well-formed header, or 0.
int HttpReader::header_problem(const Parser& parser) const {
  const auto& header = parser.header();
  if (header.target().size() > config_.max_target_bytes) return 414;
  if (header.version() == 11 && header.count(http::field::host) != 1) return 400;
  // Anything around or instead of chunked leaves the end of the body to guess: the way requests are smuggled.
  const std::string coding = parser.field(http::field::transfer_encoding);
  if (!coding.empty() && !boost::beast::iequals(coding, "chunked")) return 501;
  if (!coding.empty() && header.version() == 10) return 400;
  const auto length = parser.content_length();
  if (length && *length > config_.max_body_bytes) return 413;
  return 0;
}

void HttpReader::describe(const Parser& parser, IncomingRequest& incoming) const {
  const auto& header = parser.header();
  incoming.request.method = std::string(header.method_string());
  const std::string target(header.target());
  incoming.request.path = target.substr(0, target.find('?'));
  incoming.request.authorization = std::string(header[http::field::authorization]);
  incoming.request.request_id = safe_request_id(std::string(header["X-Request-Id"]));
  incoming.chunked_ok = header.version() != 10;
  incoming.keep_alive = parser.is_header_done() && header.version() == 11 && parser.keep_alive();
}

net::awaitable<void> HttpReader::answer_expectation(Parser& parser, IncomingRequest& incoming) {
  const std::string expectation = parser.field(http::field::expect);
  if (expectation.empty() || parser.header().version() == 10) co_return;
  if (!boost::beast::iequals(expectation, "100-continue")) {
    refuse(incoming, 417);
    co_return;
  }
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  deadline_.start(config_.write_timeout);
  const auto [error, num_bytes] = co_await net::async_write(socket_, net::buffer(kContinue), kAwait);
  if (error) incoming.outcome = Outcome::kClosed;
}

net::awaitable<void> HttpReader::read_body(Parser& parser, IncomingRequest& incoming) {
  if (parser.is_done()) co_return;
  // The length of a chunked body is not known: it may become the largest.
  const uint64_t expected = parser.content_length().value_or(config_.max_body_bytes);
  auto reservation = budget_.reserve(expected);
  if (!reservation) {
    refuse(incoming, 503);
    co_return;
  }
  incoming.body_reservation = *std::move(reservation);
  parser.body_limit(config_.max_body_bytes);
  while (!parser.is_done()) {
    deadline_.start(config_.body_timeout);
    const auto result = co_await http::async_read_some(socket_, buffer_, parser, kAwait);
    const error_code error = std::get<0>(result);
    if (!error) continue;
    if (deadline_.expired()) refuse(incoming, 408);
    else if (error == http::error::body_limit) refuse(incoming, 413, limit_text(config_.max_body_bytes));
    else if (is_gone(error)) incoming.outcome = Outcome::kClosed;
    else refuse(incoming, 400);
    co_return;
  }
}

}  // namespace skipper

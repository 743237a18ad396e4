// Reads HTTP/1.x requests from one connection, each limit checked before memory or time is spent.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <cstdint>

#include "frontend/body_budget.h"
#include "frontend/connection_deadline.h"
#include "frontend/frontend_config.h"
#include "frontend/http_error.h"
#include "frontend/http_message.h"

namespace skipper {

struct IncomingRequest {
  enum class Outcome : uint8_t { kRequest, kRefused, kClosed };
  Outcome outcome = Outcome::kClosed;
  HttpRequest request;
  HttpError error;           // kRefused: answer it and close
  bool keep_alive = false;   // what the client wishes
  bool chunked_ok = true;    // HTTP/1.1
  BodyBudget::Reservation body_reservation;
};

// The socket and buffer belong to the connection; what the client sent beyond one request stays in the buffer.
class HttpReader {
 public:
  HttpReader(boost::asio::ip::tcp::socket& socket, boost::beast::flat_buffer& buffer, const FrontendConfig& config,
             BodyBudget& budget);

  // False when the client closed or was idle for too long.
  boost::asio::awaitable<bool> wait_for_request();
  // Reads one request, the first bytes of which may have come. Never throws for what a client sends.
  boost::asio::awaitable<IncomingRequest> read();

 private:
  struct Parser;

  boost::asio::awaitable<void> read_header(Parser& parser, IncomingRequest& incoming);
  boost::asio::awaitable<void> read_body(Parser& parser, IncomingRequest& incoming);
  boost::asio::awaitable<void> answer_expectation(Parser& parser, IncomingRequest& incoming);
  HttpError refuse_header(const Parser& parser, const boost::system::error_code& error) const;
  int header_problem(const Parser& parser) const;
  void describe(const Parser& parser, IncomingRequest& incoming) const;

  boost::asio::ip::tcp::socket& socket_;
  boost::beast::flat_buffer& buffer_;
  const FrontendConfig& config_;
  BodyBudget& budget_;
  ConnectionDeadline deadline_;
};

}  // namespace skipper

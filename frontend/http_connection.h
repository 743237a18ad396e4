// One client's connection: its requests one after the other, each answered before the next is read.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <functional>
#include <memory>
#include <set>

#include "frontend/body_budget.h"
#include "frontend/endpoints.h"
#include "frontend/frontend_config.h"
#include "frontend/http_reader.h"
#include "frontend/http_writer.h"
#include "metrics/metrics_registry.h"

namespace skipper {

class HttpConnection;

// What all connections of a server share. The I/O thread only, but for the pool.
struct ConnectionShared {
  const FrontendConfig config;
  const EndpointTable endpoints;
  MetricsRegistry& metrics;
  boost::asio::thread_pool& processor_pool;
  BodyBudget body_budget{config.max_inflight_body_bytes};
  std::set<HttpConnection*> connections{};
  std::function<void()> when_empty{};  // called when the last connection ends
  bool draining = false;
};

// The I/O thread only.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(boost::asio::ip::tcp::socket socket, ConnectionShared& shared);
  ~HttpConnection();

  // Serves until the client or drain() ends it.
  boost::asio::awaitable<void> run();
  // Answers 503 and closes: for connections beyond the limit.
  boost::asio::awaitable<void> turn_away();

  // Ends after the response under way, at once when there is none.
  void drain();
  // Ends the response under way with an error the client can read.
  void abort();
  // Ends everything.
  void close();

 private:
  boost::asio::awaitable<bool> answer(IncomingRequest incoming);
  boost::asio::awaitable<bool> answer_slowly(const Endpoint& endpoint, IncomingRequest& incoming, const ResponseFraming& framing);
  boost::asio::awaitable<EndpointResult> handle(const Endpoint& endpoint, const HttpRequest& request);
  boost::asio::awaitable<bool> answer_completion(ChatCompletion& completion, const ResponseFraming& framing);
  boost::asio::awaitable<bool> answer_whole(ChatCompletion& completion, const ResponseFraming& framing);
  boost::asio::awaitable<bool> answer_streamed(ChatCompletion& completion, const ResponseFraming& framing);
  boost::asio::awaitable<ChatCompletion::Progress> next_progress(ChatCompletion& completion);
  boost::asio::awaitable<bool> write_counted(const HttpResponse& response, const ResponseFraming& framing);
  boost::asio::awaitable<void> close_gently();

  void watch_peer();
  boost::asio::awaitable<void> stop_watching();
  void wake();
  boost::asio::awaitable<void> wait_for_wake();

  boost::asio::ip::tcp::socket socket_;
  ConnectionShared& shared_;
  boost::beast::flat_buffer buffer_;
  HttpReader reader_;
  HttpWriter writer_;
  boost::asio::steady_timer wakeup_timer_;  // never expires: its cancellation is the signal
  std::string metrics_path_;                // of the request under way

  bool responding_ = false;
  bool woken_ = false;
  bool watching_ = false;      // a read is pending that only learns of a disconnect
  bool watch_wanted_ = false;
  bool disconnected_ = false;
  bool aborted_ = false;
};

}  // namespace skipper

#include "frontend/http_server.h"

#include <glog/logging.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/error.h"
#include "frontend/await.h"
#include "frontend/http_connection.h"

namespace skipper {

namespace net = boost::asio;
using boost::system::error_code;
using tcp = net::ip::tcp;

namespace {

constexpr std::chrono::milliseconds kPauseAfterFailedAccept{100};  // out of file descriptors: others must end first
constexpr std::chrono::milliseconds kLastWords{1000};              // for the errors that abort() writes

tcp::endpoint resolve(net::io_context& io, const FrontendConfig& config) {
  error_code error;
  const auto results = tcp::resolver(io).resolve(config.host, std::to_string(config.port), tcp::resolver::passive, error);
  if (error || results.empty()) {
    throw Error("host '" + config.host + "' cannot be resolved (" + error.message() + "); choose another with --host");
  }
  return results.begin()->endpoint();
}

[[noreturn]] void refuse_address(const FrontendConfig& config, const error_code& error) {
  const std::string address = "port " + std::to_string(config.port) + " on " + config.host;
  if (error == net::error::address_in_use) throw Error(address + " is in use; choose another with " + config.port_flag);
  if (error == net::error::access_denied) {
    throw Error(address + " needs privileges; choose one above 1023 with " + config.port_flag);
  }
  if (error == net::error::make_error_code(static_cast<net::error::basic_errors>(EADDRNOTAVAIL))) {
    throw Error("address " + config.host + " is not of this host; choose another with --host");
  }
  throw Error("cannot listen to " + address + ": " + error.message());
}

tcp::acceptor listen(net::io_context& io, const FrontendConfig& config) {
  const tcp::endpoint endpoint = resolve(io, config);
  tcp::acceptor acceptor(io);
  error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(net::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(net::socket_base::max_listen_connections, error);
  if (error) refuse_address(config, error);
  return acceptor;
}

// Each keeps its connection alive until it ends.
net::awaitable<void> run_owned(std::shared_ptr<HttpConnection> connection) { co_await connection->run(); }
net::awaitable<void> turn_away_owned(std::shared_ptr<HttpConnection> connection) { co_await connection->turn_away(); }

void log_escaped(std::exception_ptr error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const std::exception& e) {
    LOG(ERROR) << "event=connection_failed error=\"" << e.what() << '"';
  }
}

}  // namespace

struct HttpServer::State {
  State(const FrontendConfig& config, EndpointTable endpoints, MetricsRegistry& metrics)
      : pool(static_cast<size_t>(config.processor_threads)),
        shared{.config = config, .endpoints = std::move(endpoints), .metrics = metrics, .processor_pool = pool},
        acceptor(listen(io, config)),
        port(acceptor.local_endpoint().port()),
        drain_timer(io) {
    shared.when_empty = [this] { drain_timer.cancel(); };
  }

  net::awaitable<void> accept_connections();
  void serve(tcp::socket socket);
  void begin_drain(std::chrono::milliseconds grace);
  net::awaitable<void> end_stragglers();

  net::thread_pool pool;
  ConnectionShared shared;
  net::io_context io{1};  // its end destroys suspended connections, which know `shared`
  tcp::acceptor acceptor;
  const uint16_t port;
  net::steady_timer drain_timer;
  net::steady_timer::time_point drain_end = net::steady_timer::time_point::max();
};

HttpServer::HttpServer(const FrontendConfig& config, EndpointTable endpoints, MetricsRegistry& metrics) {
  config.validate();
  state_ = std::make_unique<State>(config, std::move(endpoints), metrics);
}

HttpServer::~HttpServer() {
  state_->pool.join();
  state_->shared.when_empty = nullptr;
}

uint16_t HttpServer::port() const { return state_->port; }

void HttpServer::run() {
  net::co_spawn(state_->io, state_->accept_connections(), log_escaped);
  state_->io.run();
  state_->pool.join();
}

void HttpServer::stop() { stop(state_->shared.config.drain_timeout); }

void HttpServer::stop(std::chrono::milliseconds grace) {
  net::post(state_->io, [state = state_.get(), grace] { state->begin_drain(grace); });
}

net::awaitable<void> HttpServer::State::accept_connections() {
  while (!shared.draining) {
    auto [error, socket] = co_await acceptor.async_accept(kAwait);
    if (shared.draining) break;
    if (!error) {
      serve(std::move(socket));
      continue;
    }
    LOG(WARNING) << "event=accept_failed error=\"" << error.message() << '"';
    net::steady_timer pause(io, kPauseAfterFailedAccept);
    co_await pause.async_wait(kAwait);
  }
}

void HttpServer::State::serve(tcp::socket socket) {
  const bool full = shared.connections.size() >= static_cast<size_t>(shared.config.max_connections);
  const auto connection = std::make_shared<HttpConnection>(std::move(socket), shared);
  net::co_spawn(io, full ? turn_away_owned(connection) : run_owned(connection), log_escaped);
}

void HttpServer::State::begin_drain(std::chrono::milliseconds grace) {
  drain_end = std::min(drain_end, net::steady_timer::clock_type::now() + grace);
  if (shared.draining) {
    drain_timer.cancel();  // end_stragglers() looks at the new end
    return;
  }
  shared.draining = true;
  error_code ignored;
  acceptor.close(ignored);
  for (HttpConnection* connection : shared.connections) connection->drain();
  net::co_spawn(io, end_stragglers(), log_escaped);
}

// Waits for the connections to end by themselves; what is left at drain_end is told and cut off.
net::awaitable<void> HttpServer::State::end_stragglers() {
  while (!shared.connections.empty() && net::steady_timer::clock_type::now() < drain_end) {
    drain_timer.expires_at(drain_end);
    co_await drain_timer.async_wait(kAwait);
  }
  for (HttpConnection* connection : shared.connections) connection->abort();
  if (shared.connections.empty()) co_return;
  drain_timer.expires_after(kLastWords);
  co_await drain_timer.async_wait(kAwait);
  for (HttpConnection* connection : shared.connections) connection->close();
}

}  // namespace skipper

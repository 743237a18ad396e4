// A time limit on what one connection waits for; when it passes, the socket's operations end with operation_aborted.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>

namespace skipper {

// Unlike beast::tcp_stream's it leaves the socket open, so that the client can still be told. One thread.
class ConnectionDeadline {
 public:
  explicit ConnectionDeadline(boost::asio::ip::tcp::socket& socket)
      : timer_(socket.get_executor()), state_(std::make_shared<State>(&socket)) {}
  ~ConnectionDeadline() { state_->socket = nullptr; }
  ConnectionDeadline(const ConnectionDeadline&) = delete;
  ConnectionDeadline& operator=(const ConnectionDeadline&) = delete;

  // Replaces the limit before it.
  void start(std::chrono::milliseconds limit) {
    stop();
    state_->expired = false;
    timer_.expires_after(limit);
    timer_.async_wait([state = state_, generation = state_->generation](boost::system::error_code error) {
      // A timer that has fired cannot be cancelled any more: the generation tells.
      if (error || generation != state->generation || state->socket == nullptr) return;
      state->expired = true;
      state->socket->cancel(error);
    });
  }

  void stop() {
    ++state_->generation;
    timer_.cancel();
  }

  // Whether the limit started last has passed.
  bool expired() const { return state_->expired; }

 private:
  // Outlives the deadline in handlers that are already queued.
  struct State {
    explicit State(boost::asio::ip::tcp::socket* s) : socket(s) {}
    boost::asio::ip::tcp::socket* socket;
    uint64_t generation = 0;
    bool expired = false;
  };

  boost::asio::steady_timer timer_;
  std::shared_ptr<State> state_;
};

}  // namespace skipper

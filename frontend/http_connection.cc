#include "frontend/http_connection.h"

#include <glog/logging.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <exception>

#include "frontend/await.h"
#include "frontend/request_id.h"
#include "frontend/sse_writer.h"

namespace skipper {

namespace net = boost::asio;
using boost::system::error_code;
using tcp = net::ip::tcp;
using Outcome = IncomingRequest::Outcome;

namespace {

constexpr size_t kPipelineReadBytes = 4096;
constexpr size_t kMaxPipelinedBytes = 64 << 10;  // sent ahead while a response is under way
constexpr std::chrono::milliseconds kLingerTimeout{2000};

// The header and the body's buffer must fit with what a client sent ahead.
size_t buffer_limit(const FrontendConfig& config) { return config.max_header_bytes + 2 * kMaxPipelinedBytes; }

constexpr const char* kOtherPaths = "other";

// Why `endpoints` have no answer.
HttpError no_endpoint(const HttpRequest& request, const EndpointTable& endpoints) {
  if (!endpoints.has_path(request.path)) {
    return http_error(404, "no such path: " + request.path.substr(0, 200) + "; the paths here are " + endpoints.paths());
  }
  HttpError error = http_error(405, request.path + " answers " + endpoints.allowed_methods(request.path) + " only");
  error.allow = endpoints.allowed_methods(request.path);
  return error;
}

EndpointResult call(const Endpoint& endpoint, const HttpRequest& request) {
  try {
    return endpoint.handle(request);
  } catch (...) {
    return error_response(http_error_from(std::current_exception()));
  }
}

HttpError shutdown_error() { return http_error(503, "the server is shutting down"); }

}  // namespace

HttpConnection::HttpConnection(tcp::socket socket, ConnectionShared& shared)
    : socket_(std::move(socket)),
      shared_(shared),
      buffer_(buffer_limit(shared.config)),
      reader_(socket_, buffer_, shared.config, shared.body_budget),
      writer_(socket_, shared.config),
      wakeup_timer_(socket_.get_executor()),
      metrics_path_(kOtherPaths) {
  error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
  shared_.connections.insert(this);
}

HttpConnection::~HttpConnection() {
  shared_.connections.erase(this);
  if (shared_.connections.empty() && shared_.when_empty) shared_.when_empty();
}

net::awaitable<void> HttpConnection::run() {
  while (!shared_.draining) {
    const bool has_request = co_await reader_.wait_for_request();
    if (!has_request) break;
    responding_ = true;
    IncomingRequest incoming = co_await reader_.read();
    const bool go_on = co_await answer(std::move(incoming));
    responding_ = false;
    if (!go_on) break;
  }
  co_await close_gently();
}

net::awaitable<void> HttpConnection::turn_away() {
  const HttpResponse response = error_response(http_error(503, "too many connections; try again later"));
  const ResponseFraming framing{.request_id = random_id("req")};
  co_await write_counted(response, framing);
  co_await close_gently();
}

// False when the connection must end.
net::awaitable<bool> HttpConnection::answer(IncomingRequest incoming) {
  if (incoming.outcome == Outcome::kClosed) co_return false;
  const HttpRequest& request = incoming.request;
  const Endpoint* endpoint = shared_.endpoints.find(request.path, request.method);
  metrics_path_ = shared_.endpoints.has_path(request.path) ? request.path : kOtherPaths;
  const bool keeps_alive = incoming.keep_alive && !shared_.draining;
  const ResponseFraming framing{.request_id = request.request_id,
                                .after = keeps_alive ? AfterResponse::kKeepAlive : AfterResponse::kClose,
                                .body = request.method == "HEAD" ? BodyPresence::kHeaderOnly : BodyPresence::kBody,
                                .chunked = incoming.chunked_ok};
  bool written = false;
  if (incoming.outcome == Outcome::kRefused) {
    written = co_await write_counted(error_response(incoming.error), framing);
  } else if (endpoint == nullptr) {
    written = co_await write_counted(error_response(no_endpoint(request, shared_.endpoints)), framing);
  } else if (endpoint->work == Endpoint::Work::kShort) {
    written = co_await write_counted(std::get<HttpResponse>(call(*endpoint, request)), framing);
  } else {
    written = co_await answer_slowly(*endpoint, incoming, framing);
  }
  co_return written && keeps_alive;
}

// Work of a processor thread and perhaps of the engine; all the while a disconnect is noticed.
net::awaitable<bool> HttpConnection::answer_slowly(const Endpoint& endpoint, IncomingRequest& incoming,
                                                   const ResponseFraming& framing) {
  watch_peer();
  const EndpointResult result = co_await handle(endpoint, incoming.request);
  incoming.request.body = std::string();
  incoming.body_reservation = BodyBudget::Reservation();
  bool written = false;
  if (const auto* completion = std::get_if<std::shared_ptr<ChatCompletion>>(&result)) {
    written = co_await answer_completion(**completion, framing);
  } else {
    written = co_await write_counted(std::get<HttpResponse>(result), framing);
  }
  co_await stop_watching();
  co_return written;
}

// On the processor pool; back on this thread afterwards.
net::awaitable<EndpointResult> HttpConnection::handle(const Endpoint& endpoint, const HttpRequest& request) {
  const auto work = [&endpoint, &request]() -> net::awaitable<EndpointResult> { co_return call(endpoint, request); };
  co_return co_await net::co_spawn(shared_.processor_pool, work, net::use_awaitable);
}

net::awaitable<bool> HttpConnection::answer_completion(ChatCompletion& completion, const ResponseFraming& framing) {
  completion.outbox().set_wakeup([weak = weak_from_this(), executor = socket_.get_executor()] {
    net::post(executor, [weak] {
      if (const auto connection = weak.lock()) connection->wake();
    });
  });
  if (completion.mode() == ResponseMode::kStreamed) co_return co_await answer_streamed(completion, framing);
  co_return co_await answer_whole(completion, framing);
}

net::awaitable<bool> HttpConnection::answer_whole(ChatCompletion& completion, const ResponseFraming& framing) {
  while (true) {
    const ChatCompletion::Progress progress = co_await next_progress(completion);
    if (disconnected_) co_return false;
    if (progress.error) co_return co_await write_counted(error_response(*progress.error), framing);
    if (progress.finished) co_return co_await write_counted(completion.response(), framing);
  }
}

// The header waits for the first token: until then an error can still be a status.
net::awaitable<bool> HttpConnection::answer_streamed(ChatCompletion& completion, const ResponseFraming& framing) {
  ChatCompletion::Progress progress = co_await next_progress(completion);
  if (disconnected_) co_return false;
  if (progress.error && progress.events.empty()) co_return co_await write_counted(error_response(*progress.error), framing);
  shared_.metrics.record_http_request(metrics_path_, 200);
  if (!co_await writer_.begin_events(framing)) co_return false;
  while (true) {
    if (progress.error) progress.events += sse_event(error_json(*progress.error));
    if (!co_await writer_.write_events(progress.events, framing)) co_return false;
    if (progress.error) {
      co_await writer_.end_events(framing);
      co_return false;
    }
    if (progress.finished) co_return co_await writer_.end_events(framing);
    progress = co_await next_progress(completion);
    if (disconnected_) co_return false;
  }
}

// Waits until there is something to write, an end, or a disconnect.
net::awaitable<ChatCompletion::Progress> HttpConnection::next_progress(ChatCompletion& completion) {
  while (true) {
    ChatCompletion::Progress progress;
    if (disconnected_) co_return progress;
    if (aborted_) progress.error = shutdown_error();
    else progress = completion.advance();
    if (progress.error || progress.finished || !progress.events.empty()) co_return progress;
    co_await wait_for_wake();
  }
}

net::awaitable<bool> HttpConnection::write_counted(const HttpResponse& response, const ResponseFraming& framing) {
  shared_.metrics.record_http_request(metrics_path_, response.status);
  VLOG(1) << "event=response path=" << metrics_path_ << " status=" << response.status << " request_id=" << framing.request_id;
  co_return co_await writer_.write_response(response, framing);
}

// Closing with unread bytes would send a reset that destroys the answer on its way: says goodbye, then reads what still comes.
net::awaitable<void> HttpConnection::close_gently() {
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  ConnectionDeadline deadline(socket_);
  deadline.start(kLingerTimeout);
  while (!disconnected_ && !shared_.draining) {
    buffer_.clear();
    const auto [error, num_bytes] = co_await socket_.async_read_some(buffer_.prepare(kPipelineReadBytes), kAwait);
    if (error) break;
  }
  socket_.close(ignored);
}

// A read that is pending while a response is under way: it ends when the client goes. What the client sends ahead is kept.
void HttpConnection::watch_peer() {
  watch_wanted_ = true;
  if (watching_ || buffer_.size() >= kMaxPipelinedBytes) return;
  watching_ = true;
  socket_.async_read_some(buffer_.prepare(kPipelineReadBytes),
                          [self = shared_from_this()](const error_code& error, size_t num_bytes) {
                            self->watching_ = false;
                            self->buffer_.commit(num_bytes);
                            if (error && self->watch_wanted_) self->disconnected_ = true;
                            if (!error && self->watch_wanted_) self->watch_peer();
                            self->wake();
                          });
}

net::awaitable<void> HttpConnection::stop_watching() {
  watch_wanted_ = false;
  error_code ignored;
  if (watching_) socket_.cancel(ignored);
  while (watching_) co_await wait_for_wake();
}

void HttpConnection::wake() {
  woken_ = true;
  wakeup_timer_.cancel();
}

net::awaitable<void> HttpConnection::wait_for_wake() {
  if (!woken_) {
    wakeup_timer_.expires_at(net::steady_timer::time_point::max());
    co_await wakeup_timer_.async_wait(kAwait);
  }
  woken_ = false;
}

void HttpConnection::drain() {
  if (responding_) return;
  error_code ignored;
  socket_.cancel(ignored);
}

void HttpConnection::abort() {
  aborted_ = true;
  wake();
}

void HttpConnection::close() {
  disconnected_ = true;
  error_code ignored;
  socket_.close(ignored);
  wake();
}

}  // namespace skipper

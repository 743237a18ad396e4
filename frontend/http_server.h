// Listens, accepts, and ends gracefully.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "frontend/endpoints.h"
#include "frontend/frontend_config.h"
#include "metrics/metrics_registry.h"

namespace skipper {

// One I/O thread (the caller of run()) and `processor_threads` more for slow work.
class HttpServer {
 public:
  // Listens at once: clients may connect and wait until run(). Throws Error when the address is in use, not of this host, or not
  // allowed; the metrics outlive the server.
  HttpServer(const FrontendConfig& config, EndpointTable endpoints, MetricsRegistry& metrics);
  ~HttpServer();

  // The port listened on; differs from the config's when that is 0.
  uint16_t port() const;

  // Serves until stop() was called and the last connection ended.
  void run();

  // Takes no new connections, lets running responses finish within drain_timeout, then ends them with an error. Thread-safe,
  // returns at once, may be called before run() and more than once.
  void stop();
  // The same within `grace`; a second call can only shorten it.
  void stop(std::chrono::milliseconds grace);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace skipper

// Rank 0's admin listener: HTTP on a thread of its own, from before the weights are loaded until the server has ended.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "engine/engine.h"
#include "frontend/admin_listener.h"
#include "frontend/http_server.h"
#include "launcher/flags.h"
#include "launcher/rank_process.h"
#include "metrics/metrics_registry.h"

namespace skipper {

class AdminServer {
 public:
  // Listens on --admin_port of 127.0.0.1. Throws InvalidFile for a key file that is missing, empty or open to everybody, Error
  // for a port that cannot be had. `process` and `metrics` outlive the server.
  AdminServer(const CommandLine& line, const RankProcess& process, MetricsRegistry& metrics);
  ~AdminServer();

  uint16_t port() const { return server_.port(); }
  // Until then requests are refused: the model is loading.
  void set_engine(Engine& engine) { engine_ = &engine; }
  void stop(std::chrono::milliseconds grace) { server_.stop(grace); }

 private:
  AdminHooks hooks();
  Engine& engine() const;
  OperatingReport report() const;
  OperatingReport report_when_in_force(uint64_t change) const;
  EngineGuard& guard() const;
  GuardState arm_guard() const;
  PolicyReport policies() const;
  PolicyReport switch_policy(const PolicyRequest& request) const;

  const RankProcess& process_;
  const std::chrono::milliseconds patience_;  // for the step that applies a change
  std::atomic<Engine*> engine_{nullptr};
  HttpServer server_;
  std::thread thread_;
};

}  // namespace skipper

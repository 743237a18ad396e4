// The heartbeat of the step loop: written by the engine thread, read by whoever asks whether this rank is well.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string_view>

namespace skipper {

// loading: no step yet. idle: waiting for work. stepping: inside a step. stalled: inside one step longer than the limit.
enum class EngineState : uint8_t { kLoading, kIdle, kStepping, kStalled };

std::string_view name_of(EngineState state);

struct HealthReport {
  EngineState state = EngineState::kLoading;
  int64_t last_step = -1;                       // the step begun last; -1 = none
  std::chrono::milliseconds since_last_beat{0};  // since the engine thread last said anything
};

// Thread-safe.
class HealthMonitor {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Clock = std::function<TimePoint()>;

  explicit HealthMonitor(std::chrono::milliseconds stall_limit, Clock clock = std::chrono::steady_clock::now);

  // By the engine thread.
  void step_started(int64_t step);
  void step_finished();
  void idle();

  HealthReport report() const;

 private:
  void beat(EngineState state);

  const std::chrono::milliseconds stall_limit_;
  const Clock clock_;
  mutable std::mutex mutex_;
  EngineState state_ = EngineState::kLoading;
  int64_t last_step_ = -1;
  TimePoint last_beat_;
};

}  // namespace skipper

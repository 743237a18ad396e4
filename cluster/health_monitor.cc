#include "cluster/health_monitor.h"

namespace skipper {

std::string_view name_of(EngineState state) {
  switch (state) {
    case EngineState::kLoading: return "loading";
    case EngineState::kIdle: return "idle";
    case EngineState::kStepping: return "stepping";
    case EngineState::kStalled: return "stalled";
  }
  return "unknown";
}

HealthMonitor::HealthMonitor(std::chrono::milliseconds stall_limit, Clock clock)
    : stall_limit_(stall_limit), clock_(std::move(clock)), last_beat_(clock_()) {}

void HealthMonitor::step_started(int64_t step) {
  const std::lock_guard lock(mutex_);
  last_step_ = step;
  beat(EngineState::kStepping);
}

void HealthMonitor::step_finished() {
  const std::lock_guard lock(mutex_);
  beat(EngineState::kIdle);
}

void HealthMonitor::idle() {
  const std::lock_guard lock(mutex_);
  beat(EngineState::kIdle);
}

HealthReport HealthMonitor::report() const {
  const std::lock_guard lock(mutex_);
  const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(clock_() - last_beat_);
  const bool stalled = state_ == EngineState::kStepping && age > stall_limit_;
  return {stalled ? EngineState::kStalled : state_, last_step_, age};
}

void HealthMonitor::beat(EngineState state) {
  state_ = state;
  last_beat_ = clock_();
}

}  // namespace skipper

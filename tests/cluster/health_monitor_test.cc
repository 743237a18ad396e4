#include "cluster/health_monitor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace skipper {
namespace {

using std::chrono::milliseconds;

// A monitor whose time stands still unless told otherwise.
struct FakeTime {
  HealthMonitor::TimePoint now{};
  HealthMonitor monitor{milliseconds(100), [this] { return now; }};
};

TEST(HealthMonitor, IsLoadingUntilTheFirstBeat) {
  FakeTime time;
  time.now += milliseconds(5000);
  EXPECT_EQ(time.monitor.report().state, EngineState::kLoading);
  EXPECT_EQ(time.monitor.report().last_step, -1);
  EXPECT_EQ(time.monitor.report().since_last_beat, milliseconds(5000));
  time.monitor.idle();
  EXPECT_EQ(time.monitor.report().state, EngineState::kIdle);
}

TEST(HealthMonitor, IdleIsNeverStalled) {
  FakeTime time;
  time.monitor.step_started(7);
  time.monitor.step_finished();
  time.now += milliseconds(100000);
  EXPECT_EQ(time.monitor.report().state, EngineState::kIdle);
  EXPECT_EQ(time.monitor.report().last_step, 7);
  EXPECT_EQ(time.monitor.report().since_last_beat, milliseconds(100000));
}

TEST(HealthMonitor, StepIsStalledWhenItRunsLongerThanTheLimit) {
  FakeTime time;
  time.monitor.step_started(8);
  time.now += milliseconds(100);
  EXPECT_EQ(time.monitor.report().state, EngineState::kStepping);
  time.now += milliseconds(1);
  EXPECT_EQ(time.monitor.report().state, EngineState::kStalled);
  time.monitor.step_started(9);
  EXPECT_EQ(time.monitor.report().state, EngineState::kStepping);
  EXPECT_EQ(time.monitor.report().last_step, 9);
}

TEST(HealthMonitor, CanBeReadWhileTheEngineBeats) {
  HealthMonitor monitor(milliseconds(1000));
  std::atomic<bool> stop{false};
  std::thread engine([&] {
    for (int64_t step = 0; !stop; ++step) {
      monitor.step_started(step);
      monitor.step_finished();
    }
  });
  int64_t previous = -1;
  for (int i = 0; i < 1000; ++i) {
    const HealthReport report = monitor.report();
    EXPECT_GE(report.last_step, previous);
    previous = report.last_step;
  }
  stop = true;
  engine.join();
}

TEST(HealthMonitor, NamesItsStates) {
  EXPECT_EQ(name_of(EngineState::kLoading), "loading");
  EXPECT_EQ(name_of(EngineState::kIdle), "idle");
  EXPECT_EQ(name_of(EngineState::kStepping), "stepping");
  EXPECT_EQ(name_of(EngineState::kStalled), "stalled");
}

}  // namespace
}  // namespace skipper

#include "comm/polling_pause.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace skipper {

using std::chrono::microseconds;

PollingPause PollingPause::within_step() {
  return PollingPause({microseconds(20), microseconds(500), microseconds(200)});
}

PollingPause PollingPause::idle() { return PollingPause({microseconds(0), microseconds(100), microseconds(2000)}); }

PollingPause PollingPause::for_device() {
  return PollingPause({microseconds(20), microseconds(20000), microseconds(200)});
}

void PollingPause::rest() {
  const auto time = waited();
  if (time < pacing_.busy_until) return;
  if (time < pacing_.yield_until) {
    sched_yield();
    return;
  }
  std::this_thread::sleep_for(next_sleep_);
  next_sleep_ = std::min(next_sleep_ * 3 / 2, pacing_.longest_sleep);
}

}  // namespace skipper

// What a rank does between two looks at an MPI request or a GPU, so that waiting neither adds latency nor takes others' cores.
#pragma once

#include <chrono>

namespace skipper {

// MPI offers no event to sleep on, and NCCL none with a limit: only looking again. Ranks may share cores, so spinning is
// bounded: first busy, then giving way to other threads, then sleeps that grow.
//
//               busy until   yield until   sleeps
//   in a step   20 us        500 us        50 us growing to 200 us
//   idle        -            100 us        50 us growing to 2 ms: under 2 % of a core, awake within 5 ms
//   for a GPU   20 us        20 ms         50 us growing to 200 us: a late look leaves the GPU without work
class PollingPause {
 public:
  static PollingPause within_step();
  static PollingPause idle();
  static PollingPause for_device();

  // Called after a look that found nothing.
  void rest();
  // Time since this pause was made.
  std::chrono::nanoseconds waited() const { return std::chrono::steady_clock::now() - start_; }

 private:
  struct Pacing {
    std::chrono::nanoseconds busy_until;
    std::chrono::nanoseconds yield_until;
    std::chrono::nanoseconds longest_sleep;
  };

  explicit PollingPause(const Pacing& pacing) : pacing_(pacing) {}

  Pacing pacing_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::nanoseconds next_sleep_ = std::chrono::microseconds(50);
};

}  // namespace skipper

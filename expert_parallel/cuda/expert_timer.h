// How long a GPU works on experts, by events around their products.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "tensor/device_runtime.h"

namespace skipper::cuda {

// A pair of events keeps kernels from being set up while the one before runs, and graphs have no room for them. So some steps are
// timed, on their own, and stand for the others:
//
//   timer.begin_step(8);             // this step and seven like it; 0: start() and stop() do nothing
//   timer.start(stream); ... timer.stop(stream);   // any number of times
//   stream.synchronize();
//   total += timer.finish_step();
//
// Engine thread only.
class ExpertTimer {
 public:
  void begin_step(int num_steps_like_it);
  void start(Stream& stream) { mark(stream); }
  void stop(Stream& stream) { mark(stream); }
  // The time between starts and stops, times the steps that it stands for. The events are complete.
  std::chrono::nanoseconds finish_step();

 private:
  void mark(Stream& stream);

  std::vector<std::shared_ptr<void>> events_;  // cudaEvent_t: starts and stops in turns; kept for later steps
  size_t num_marks_ = 0;
  int num_steps_like_it_ = 0;
};

}  // namespace skipper::cuda

#include "expert_parallel/cuda/expert_timer.h"

#include <cuda_runtime_api.h>
#include <glog/logging.h>

#include "tensor/cuda/cuda_check.h"

namespace skipper::cuda {
namespace {

cudaEvent_t native(const std::shared_ptr<void>& event) { return static_cast<cudaEvent_t>(event.get()); }

std::shared_ptr<void> make_event() {
  cudaEvent_t event = nullptr;
  CUDA_CHECK(cudaEventCreate(&event));
  return {event, [](void* made) { cudaEventDestroy(static_cast<cudaEvent_t>(made)); }};
}

}  // namespace

void ExpertTimer::begin_step(int num_steps_like_it) {
  num_marks_ = 0;
  num_steps_like_it_ = num_steps_like_it;
}

void ExpertTimer::mark(Stream& stream) {
  if (num_steps_like_it_ == 0) return;
  if (num_marks_ == events_.size()) events_.push_back(make_event());
  CUDA_CHECK(cudaEventRecord(native(events_[num_marks_++]), static_cast<cudaStream_t>(stream.native())));
}

std::chrono::nanoseconds ExpertTimer::finish_step() {
  CHECK_EQ(num_marks_ % 2, 0u) << "experts that were started and not stopped";
  double seconds = 0.0;
  for (size_t i = 0; i < num_marks_; i += 2) {
    float milliseconds = 0.0f;
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, native(events_[i]), native(events_[i + 1])));
    seconds += static_cast<double>(milliseconds) * 1e-3;
  }
  const std::chrono::duration<double> time(seconds * num_steps_like_it_);
  begin_step(0);
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time);
}

}  // namespace skipper::cuda

#include "tensor/cuda/stream_event.h"

#include <cuda_runtime_api.h>

#include "tensor/cuda/cuda_check.h"

namespace skipper::cuda {
namespace {

cudaStream_t native(Stream& stream) { return static_cast<cudaStream_t>(stream.native()); }
cudaEvent_t native(const std::shared_ptr<void>& event) { return static_cast<cudaEvent_t>(event.get()); }

}  // namespace

StreamEvent::StreamEvent(Stream& stream) : device_(stream.device()) {
  CUDA_CHECK(cudaSetDevice(stream.device().index));
  cudaEvent_t event = nullptr;
  CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  event_ = {event, [](void* made) { cudaEventDestroy(static_cast<cudaEvent_t>(made)); }};
}

void StreamEvent::record(Stream& stream) { CUDA_CHECK(cudaEventRecord(native(event_), native(stream))); }

void StreamEvent::hold(Stream& stream) const { CUDA_CHECK(cudaStreamWaitEvent(native(stream), native(event_), 0)); }

void StreamEvent::synchronize() const { CUDA_CHECK(cudaEventSynchronize(native(event_))); }

}  // namespace skipper::cuda

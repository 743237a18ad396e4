#include "bench/gpu_clock.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "tensor/cuda/captured_graph.h"
#include "tensor/cuda/cuda_check.h"
#include "tensor/cuda/pinned_tensor.h"
#include "tensor/tensor.h"

namespace skipper::cuda {
namespace {

constexpr int kLaunches = 7;

cudaEvent_t event_of(void* event) { return static_cast<cudaEvent_t>(event); }

}  // namespace

GpuClock::~GpuClock() {
  for (void* event : events_) cudaEventDestroy(event_of(event));
}

void GpuClock::mark() {
  if (num_marks_ == events_.size()) {
    cudaEvent_t event = nullptr;
    CUDA_CHECK(cudaEventCreate(&event));
    events_.push_back(event);
  }
  CUDA_CHECK(cudaEventRecord(event_of(events_[num_marks_++]), static_cast<cudaStream_t>(stream_.native())));
}

double GpuClock::seconds_after(size_t mark) const {
  float milliseconds = 0.0f;
  CUDA_CHECK(cudaEventElapsedTime(&milliseconds, event_of(events_.at(mark)), event_of(events_.at(mark + 1))));
  return static_cast<double>(milliseconds) * 1e-3;
}

double graph_seconds(int count, const std::function<void(int)>& work, Stream& stream) {
  work(0);  // loads the kernels
  stream.synchronize();
  const CapturedGraph graph(stream, [&] {
    for (int i = 0; i < count; ++i) work(i);
  });
  graph.launch(stream);
  GpuClock clock(stream);
  for (int launch = 0; launch < kLaunches; ++launch) {
    clock.mark();
    graph.launch(stream);
    clock.mark();
  }
  stream.synchronize();
  std::vector<double> seconds;
  for (size_t mark = 0; mark < clock.num_marks(); mark += 2) seconds.push_back(clock.seconds_after(mark) / count);
  return median(seconds);
}

double copy_bytes_per_second(Stream& stream) {
  constexpr int64_t kBytes = int64_t{1} << 30;
  const Tensor source = Tensor::zeros({kBytes}, DType::kU8, stream.device());
  Tensor target = Tensor::zeros({kBytes}, DType::kU8, stream.device());
  const double seconds = graph_seconds(4, [&](int) {
    copy_bytes({source.bytes(), source.device(), target.bytes(), target.device(), source.num_bytes()}, stream);
  }, stream);
  return 2.0 * static_cast<double>(kBytes) / seconds;
}

double host_copy_bytes_per_second(Stream& stream) {
  constexpr int64_t kBytes = int64_t{1} << 28;
  const PinnedTensor source({kBytes}, DType::kU8);
  Tensor target = Tensor::zeros({kBytes}, DType::kU8, stream.device());
  const double seconds = graph_seconds(4, [&](int) {
    copy_bytes({source.tensor().bytes(), Device::host(), target.bytes(), target.device(), target.num_bytes()}, stream);
  }, stream);
  return static_cast<double>(kBytes) / seconds;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values.at(values.size() / 2);
}

}  // namespace skipper::cuda

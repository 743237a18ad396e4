// Seconds of work on a GPU by the GPU's own clock, and how fast its memory is.
#pragma once

#include <functional>
#include <vector>

#include "tensor/device_runtime.h"

namespace skipper::cuda {

// Events on a stream, in the order in which they were recorded.
class GpuClock {
 public:
  explicit GpuClock(Stream& stream) : stream_(stream) {}
  ~GpuClock();
  GpuClock(const GpuClock&) = delete;
  GpuClock& operator=(const GpuClock&) = delete;

  void clear() { num_marks_ = 0; }
  void mark();
  size_t num_marks() const { return num_marks_; }
  // Between mark i and mark i + 1; the stream has been synchronised.
  double seconds_after(size_t mark) const;

 private:
  Stream& stream_;
  std::vector<void*> events_;  // cudaEvent_t; reused after clear()
  size_t num_marks_ = 0;
};

// Median of several launches of a graph that holds work(0) .. work(count − 1), divided by count. `work` can be captured.
double graph_seconds(int count, const std::function<void(int)>& work, Stream& stream);

// A copy of a gigabyte within the GPU's memory, bytes read and bytes written both counted.
double copy_bytes_per_second(Stream& stream);
// A copy of a quarter of a gigabyte from page-locked host memory to the GPU.
double host_copy_bytes_per_second(Stream& stream);

double median(std::vector<double> values);

}  // namespace skipper::cuda

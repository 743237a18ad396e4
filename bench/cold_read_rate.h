// How fast threads read weights from main memory in one go of the size of a product: short enough to find a quiet moment.
#pragma once

#include "base/thread_pool.h"
#include "tensor/tensor.h"

namespace skipper {

class ColdReadRate {
 public:
  explicit ColdReadRate(ThreadPool& workers);

  // Reads some tens of megabytes that the caches have forgotten, in windows; keeps the fastest window of all calls.
  void measure();
  // Of the best window so far.
  double bytes_per_second() const { return best_; }

 private:
  double seconds_of_window(int64_t window);

  ThreadPool& workers_;
  Tensor memory_;
  int64_t next_window_ = 0;
  double best_ = 0.0;
};

}  // namespace skipper

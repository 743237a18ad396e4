// How fast the threads of a rank read main memory: the bound of every step that has to read its weights.
#pragma once

#include "base/thread_pool.h"
#include "tensor/tensor.h"

namespace skipper {

class MemoryReadRate {
 public:
  // Memory far larger than any cache, written once so that all its pages exist. Throws DeviceError when there is none.
  explicit MemoryReadRate(ThreadPool& workers);

  // Reads all of it once. Returns seconds.
  double measure_seconds();
  size_t num_bytes() const { return memory_.num_bytes(); }

 private:
  ThreadPool& workers_;
  Tensor memory_;
  uint64_t checksum_ = 0;  // of everything read, so that no read can be left out
};

}  // namespace skipper

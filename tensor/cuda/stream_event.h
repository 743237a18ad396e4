// A mark in a stream that work of another stream waits for.
#pragma once

#include <memory>

#include "tensor/device_runtime.h"

namespace skipper::cuda {

// Engine thread only. Outside of captured graphs.
class StreamEvent {
 public:
  // On the stream's GPU.
  explicit StreamEvent(Stream& stream);

  // After all work queued so far; takes the place of an earlier mark.
  void record(Stream& stream);
  // Work queued on `stream` from here on starts after the mark; at once while there is none. The host does not wait.
  void hold(Stream& stream) const;
  // The host waits for the mark.
  void synchronize() const;
  Device device() const { return device_; }

 private:
  Device device_;
  std::shared_ptr<void> event_;
};

}  // namespace skipper::cuda

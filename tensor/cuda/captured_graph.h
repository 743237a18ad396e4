// Work on a GPU that was recorded once and is launched as a whole.
#pragma once

#include <functional>
#include <memory>

#include "tensor/device_runtime.h"

namespace skipper::cuda {

// Holds the addresses of all operands: their memory must outlive the graph. Engine thread only.
class CapturedGraph {
 public:
  // Records what `work` queues on the stream, without running it. `work` may neither wait nor allocate, and the kernels it
  // launches have been launched before, so that they are loaded. Throws DeviceError.
  CapturedGraph(Stream& stream, const std::function<void()>& work);

  // In stream order.
  void launch(Stream& stream) const;

 private:
  std::shared_ptr<void> executable_;
};

}  // namespace skipper::cuda

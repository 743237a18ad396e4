// How fast a GPU reads its own memory and that of its host, by copies.
#pragma once

#include <cstddef>
#include <memory>

#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// Of a GPU that this process can use; on the host it would measure memcpy.
class DeviceRates {
 public:
  // `host` is what the bus reads: page-locked memory, as streamed experts have it.
  DeviceRates(Device device, Tensor host);

  // Copies the host memory to the GPU; returns seconds.
  double measure_bus_seconds();
  // Copies as much within the GPU's memory, which reads and writes it; returns seconds.
  double measure_memory_seconds();
  // Of either copy.
  size_t num_bytes() const { return host_.num_bytes(); }

 private:
  double seconds_of_copy(const std::byte* source, Device source_device);

  Device device_;
  Stream stream_;
  Tensor host_;
  std::shared_ptr<std::byte> source_, destination_;
};

}  // namespace skipper

#include "machine/device_rates.h"

#include <chrono>

namespace skipper {

DeviceRates::DeviceRates(Device device, Tensor host)
    : device_(device),
      stream_(device),
      host_(std::move(host)),
      source_(allocate(host_.num_bytes(), device)),
      destination_(allocate(host_.num_bytes(), device)) {}

double DeviceRates::measure_bus_seconds() { return seconds_of_copy(host_.bytes(), Device::host()); }

double DeviceRates::measure_memory_seconds() { return seconds_of_copy(source_.get(), device_); }

double DeviceRates::seconds_of_copy(const std::byte* source, Device source_device) {
  stream_.synchronize();
  const auto start = std::chrono::steady_clock::now();
  copy_bytes({source, source_device, destination_.get(), device_, num_bytes()}, stream_);
  stream_.synchronize();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return elapsed.count();
}

}  // namespace skipper

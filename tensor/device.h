// Where a tensor's bytes live: host memory or the memory of one GPU.
#pragma once

#include <cstdint>

namespace skipper {

enum class DeviceKind : uint8_t { kHost, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kHost;
  int index = 0;

  static constexpr Device host() { return {}; }
  static constexpr Device cuda(int index) { return {DeviceKind::kCuda, index}; }
  friend bool operator==(const Device&, const Device&) = default;
};

}  // namespace skipper

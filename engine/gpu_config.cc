#include "engine/gpu_config.h"

#include "base/config_limit.h"

namespace skipper {

void GpuConfig::validate() const {
  require({"gpu.reserved_mb", reserved_mb, 0, int64_t{1} << 24});
  require({"gpu.device_expert_mb", device_expert_mb, -1, int64_t{1} << 24});
}

}  // namespace skipper

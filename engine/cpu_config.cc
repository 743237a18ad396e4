#include "engine/cpu_config.h"

#include "base/config_limit.h"

namespace skipper {

void CpuConfig::validate() const { require({"cpu.threads", threads, 0, 1024}); }

}  // namespace skipper

#include "comm/comm_config.h"

#include "base/config_limit.h"

namespace skipper {

void CommConfig::validate() const {
  constexpr int64_t kHour = 3600 * 1000;
  require({"comm.deadline_ms", deadline.count(), 1000, kHour});
}

}  // namespace skipper

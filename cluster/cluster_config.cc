#include "cluster/cluster_config.h"

#include "base/config_limit.h"

namespace skipper {

void ClusterConfig::validate() const {
  require({"cluster.plan_patience_ms", plan_patience.count(), 100, 86400000});
  require({"cluster.max_plan_bytes", max_plan_bytes, 4096, int64_t{1} << 30});
}

}  // namespace skipper

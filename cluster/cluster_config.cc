#include "cluster/cluster_config.h"

#include <string>

#include "base/error.h"

namespace skipper {

namespace {

struct Limit {
  const char* key;
  int64_t value;
  int64_t min;
  int64_t max;
};

void check(const Limit& limit) {
  if (limit.value >= limit.min && limit.value <= limit.max) return;
  throw InvalidFile(std::string("cluster.") + limit.key + ": " + std::to_string(limit.value) +
                    " is out of range; expected " + std::to_string(limit.min) + " to " + std::to_string(limit.max));
}

}  // namespace

void ClusterConfig::validate() const {
  check({"plan_patience_ms", plan_patience.count(), 100, 86400000});
  check({"stall_limit_ms", stall_limit.count(), 100, 86400000});
  check({"max_plan_bytes", max_plan_bytes, 4096, int64_t{1} << 30});
}

}  // namespace skipper

// Settings of the traffic that steers the ranks.
#pragma once

#include <chrono>
#include <cstdint>

namespace skipper {

struct ClusterConfig {
  // Longest silence of rank 0 before another rank gives the group up. Rank 0 sends at least its idle heartbeat
  // (engine.idle_heartbeat_ms), so a silence of this length means that it is gone.
  std::chrono::milliseconds plan_patience{60000};
  // Largest plan of one step; a longer one is refused before memory is allocated for it.
  int64_t max_plan_bytes = int64_t{64} << 20;

  // Throws InvalidFile naming the key ("cluster.plan_patience_ms") whose value cannot work.
  void validate() const;
};

}  // namespace skipper

#include "launcher/core_share.h"

#include <algorithm>
#include <thread>
#include <vector>

namespace skipper {

CoreSet usable_cores() {
  CoreSet cores;
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof(mask), &mask) == 0) {
    for (size_t core = 0; core < cores.size(); ++core) cores[core] = CPU_ISSET(core, &mask) != 0;
    return cores;
  }
  // Machines with more cores than a mask of this size holds.
  const size_t known = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, cores.size());
  for (size_t core = 0; core < known; ++core) cores[core] = true;
  return cores;
}

int core_share(std::span<const RankCores> ranks, int rank) {
  const RankCores& mine = ranks[static_cast<size_t>(rank)];
  const auto sharers = std::count_if(ranks.begin(), ranks.end(), [&](const RankCores& other) {
    return other.node == mine.node && (other.cores & mine.cores).any();
  });
  return std::max(1, static_cast<int>(mine.cores.count()) / std::max(1, static_cast<int>(sharers)));
}

int core_share_of_this_rank(Communicator& startup, const ClusterTopology& topology) {
  const CoreSet mine = usable_cores();
  std::vector<CoreSet> all(static_cast<size_t>(startup.size()));
  Stream stream;
  startup.all_gather({reinterpret_cast<const std::byte*>(&mine), sizeof(CoreSet)},
                     {reinterpret_cast<std::byte*>(all.data()), all.size() * sizeof(CoreSet)}, stream);
  std::vector<RankCores> ranks;
  for (const CoreSet& cores : all) ranks.push_back({topology.node_of(static_cast<int>(ranks.size())), cores});
  return core_share(ranks, startup.rank());
}

}  // namespace skipper

// The cores that a process may use, and how many of them each rank of a host should take.
#pragma once

#include <sched.h>

#include <bitset>
#include <span>

#include "cluster/cluster_topology.h"
#include "comm/communicator.h"

namespace skipper {

using CoreSet = std::bitset<CPU_SETSIZE>;

// The cores on which the system may run this process; never empty.
CoreSet usable_cores();

struct RankCores {
  int node = 0;
  CoreSet cores;
};

// The cores of `rank` divided by the ranks of its node that may use one of them, itself included; at least 1. Ranks that
// mpirun bound to cores of their own keep all of theirs.
int core_share(std::span<const RankCores> ranks, int rank);

// The share of this rank. All ranks call it together.
int core_share_of_this_rank(Communicator& startup, const ClusterTopology& topology);

}  // namespace skipper

// Which rank runs on which node, and so how far one rank is from another.
#pragma once

#include <string>
#include <vector>

#include "cluster/token_class.h"
#include "comm/communicator.h"

namespace skipper {

// Built once, the same on every rank.
class ClusterTopology {
 public:
  // Gathers the host names of all ranks. Ranks with equal names share a node; nodes are numbered by their first rank.
  static ClusterTopology discover(Communicator& control, const std::string& host_name, Stream& stream);
  // node_of_rank[r] = node of rank r.
  explicit ClusterTopology(std::vector<int> node_of_rank);

  int num_ranks() const { return static_cast<int>(node_of_rank_.size()); }
  int num_nodes() const { return num_nodes_; }
  int node_of(int rank) const { return node_of_rank_[static_cast<size_t>(rank)]; }
  Hop hop(int from, int to) const;

 private:
  std::vector<int> node_of_rank_;
  int num_nodes_ = 0;
};

}  // namespace skipper

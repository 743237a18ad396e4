// Ranks in rows and columns, node by place on the node, for messages that cross the network once per node.
#pragma once

#include <optional>
#include <vector>

#include "cluster/cluster_topology.h"

namespace skipper {

// Several nodes with the same number of ranks, more than one. The i-th ranks of two nodes are partners: what a rank has for
// another node goes to its partner there, which hands it on to its neighbours.
class NodeGrid {
 public:
  // None where every message is as near or as far as the others, or where nodes differ.
  static std::optional<NodeGrid> of(const ClusterTopology& topology);

  int num_nodes() const { return static_cast<int>(rank_at_.size()); }
  int ranks_per_node() const { return static_cast<int>(rank_at_.front().size()); }
  int rank_at(int node, int place) const { return rank_at_[static_cast<size_t>(node)][static_cast<size_t>(place)]; }
  int node_of(int rank) const { return node_of_[static_cast<size_t>(rank)]; }
  int place_of(int rank) const { return place_of_[static_cast<size_t>(rank)]; }
  // The rank of node `node` to which `rank` sends; on its own node itself.
  int partner(int rank, int node) const { return rank_at(node, place_of(rank)); }

 private:
  explicit NodeGrid(const ClusterTopology& topology);
  bool is_even() const;

  std::vector<std::vector<int>> rank_at_;  // [node][place], ascending ranks
  std::vector<int> node_of_, place_of_;    // [rank]
};

}  // namespace skipper

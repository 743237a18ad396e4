#include "cluster/node_grid.h"

#include <algorithm>

namespace skipper {

std::optional<NodeGrid> NodeGrid::of(const ClusterTopology& topology) {
  NodeGrid grid(topology);
  if (grid.num_nodes() < 2 || !grid.is_even() || grid.ranks_per_node() < 2) return std::nullopt;
  return grid;
}

NodeGrid::NodeGrid(const ClusterTopology& topology) : rank_at_(static_cast<size_t>(topology.num_nodes())) {
  for (int rank = 0; rank < topology.num_ranks(); ++rank) {
    std::vector<int>& neighbours = rank_at_[static_cast<size_t>(topology.node_of(rank))];
    node_of_.push_back(topology.node_of(rank));
    place_of_.push_back(static_cast<int>(neighbours.size()));
    neighbours.push_back(rank);
  }
}

bool NodeGrid::is_even() const {
  return std::ranges::all_of(rank_at_, [&](const auto& ranks) { return ranks.size() == rank_at_.front().size(); });
}

}  // namespace skipper

#include "cluster/node_grid.h"

#include <gtest/gtest.h>

namespace skipper {
namespace {

TEST(NodeGrid, PairsRanksOfTheSamePlace) {
  const auto grid = NodeGrid::of(ClusterTopology({0, 1, 0, 1, 2, 2}));
  ASSERT_TRUE(grid.has_value());
  EXPECT_EQ(grid->num_nodes(), 3);
  EXPECT_EQ(grid->ranks_per_node(), 2);
  EXPECT_EQ(grid->node_of(3), 1);
  EXPECT_EQ(grid->place_of(3), 1);
  EXPECT_EQ(grid->rank_at(1, 0), 1);
  EXPECT_EQ(grid->partner(0, 1), 1);
  EXPECT_EQ(grid->partner(2, 2), 5);
  for (int rank = 0; rank < 6; ++rank) EXPECT_EQ(grid->partner(rank, grid->node_of(rank)), rank);
}

TEST(NodeGrid, IsThereOnlyForSeveralNodesOfEquallyManyRanks) {
  EXPECT_FALSE(NodeGrid::of(ClusterTopology({0})));
  EXPECT_FALSE(NodeGrid::of(ClusterTopology({0, 0, 0, 0})));
  EXPECT_FALSE(NodeGrid::of(ClusterTopology({0, 1, 2})));
  EXPECT_FALSE(NodeGrid::of(ClusterTopology({0, 0, 1})));
  EXPECT_TRUE(NodeGrid::of(ClusterTopology({0, 0, 1, 1})));
}

}  // namespace
}  // namespace skipper

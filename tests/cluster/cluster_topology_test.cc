#include "cluster/cluster_topology.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

TEST(ClusterTopology, NumbersNodesByTheirFirstRankWhenHostsInterleave) {
  const std::vector<std::string> hosts = {"b", "a", "b", "c"};
  spawn_ranks(4, [&](Communicator& comm) {
    Stream stream;
    const auto topology = ClusterTopology::discover(comm, hosts[static_cast<size_t>(comm.rank())], stream);
    EXPECT_EQ(topology.num_ranks(), 4);
    EXPECT_EQ(topology.num_nodes(), 3);
    EXPECT_EQ(topology.node_of(0), 0);
    EXPECT_EQ(topology.node_of(1), 1);
    EXPECT_EQ(topology.node_of(2), 0);
    EXPECT_EQ(topology.node_of(3), 2);
  });
}

TEST(ClusterTopology, TellsHopsApart) {
  const ClusterTopology topology({0, 0, 1});
  EXPECT_EQ(topology.hop(1, 1), Hop::kLocal);
  EXPECT_EQ(topology.hop(0, 1), Hop::kNode);
  EXPECT_EQ(topology.hop(1, 2), Hop::kNetwork);
  EXPECT_EQ(topology.hop(2, 0), Hop::kNetwork);
}

TEST(ClusterTopology, HasOneNodeWhenThereIsOneRank) {
  spawn_ranks(1, [](Communicator& comm) {
    Stream stream;
    EXPECT_EQ(ClusterTopology::discover(comm, "host", stream).num_nodes(), 1);
  });
}

TEST(ClusterTopology, RefusesHostNamesThatDoNotFitTheRecord) {
  spawn_ranks(1, [](Communicator& comm) {
    Stream stream;
    EXPECT_THROW(ClusterTopology::discover(comm, "", stream), CommError);
    EXPECT_THROW(ClusterTopology::discover(comm, std::string(256, 'x'), stream), CommError);
    EXPECT_EQ(ClusterTopology::discover(comm, std::string(255, 'x'), stream).num_nodes(), 1);
  });
}

}  // namespace
}  // namespace skipper

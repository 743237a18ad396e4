#include "launcher/core_share.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

CoreSet cores(size_t begin, size_t end) {
  CoreSet set;
  for (size_t core = begin; core < end; ++core) set[core] = true;
  return set;
}

TEST(CoreShare, DividesCoresAmongTheRanksOfAHost) {
  const std::vector<RankCores> ranks = {{0, cores(0, 7)}, {0, cores(0, 7)}, {1, cores(0, 7)}, {0, cores(0, 7)}};
  EXPECT_EQ(core_share(ranks, 0), 2);
  EXPECT_EQ(core_share(ranks, 2), 7);
}

TEST(CoreShare, LeavesARankTheCoresItIsBoundTo) {
  const std::vector<RankCores> ranks = {{0, cores(0, 4)}, {0, cores(4, 8)}, {0, cores(6, 8)}};
  EXPECT_EQ(core_share(ranks, 0), 4);
  EXPECT_EQ(core_share(ranks, 1), 2);
  EXPECT_EQ(core_share(ranks, 2), 1);
}

TEST(CoreShare, IsOneWhereThereAreMoreRanksThanCores) {
  EXPECT_EQ(core_share(std::vector<RankCores>(5, {0, cores(0, 3)}), 4), 1);
}

TEST(CoreShare, IsAskedOfAllRanksAtOnce) {
  const auto num_cores = static_cast<int>(usable_cores().count());
  ASSERT_GT(num_cores, 0);
  spawn_ranks(3, [num_cores](Communicator& comm) {
    const ClusterTopology topology({0, 0, 1});
    EXPECT_EQ(core_share_of_this_rank(comm, topology), comm.rank() == 2 ? num_cores : std::max(1, num_cores / 2));
  });
}

}  // namespace
}  // namespace skipper

#include "comm/communicator_factory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"
#include "comm/operation_site.h"
#include "tests/comm/collective_cases.h"

namespace skipper {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

TEST(CommunicatorFactory, MakesAGroupOfOneWithoutMpiWhenMpirunDidNotStartUs) {
  unsetenv("OMPI_COMM_WORLD_SIZE");
  unsetenv("PMIX_RANK");
  EXPECT_FALSE(MpiRuntime::launched());
  ProcessGroup group = join_process_group();
  open_communicators({}, group);
  EXPECT_EQ(group.runtime, nullptr);
  EXPECT_FALSE(group.host_name.empty());
  EXPECT_EQ(group.node_rank, 0);
  EXPECT_EQ(group.node_size, 1);
  for (Communicator* comm : {group.startup.get(), group.control.get(), group.data.get()}) {
    EXPECT_EQ(comm->rank(), 0);
    EXPECT_EQ(comm->size(), 1);
    collective_cases::all_to_all_v_moves_the_table(*comm);
    collective_cases::all_reduce_sum_has_equal_bits_on_all_ranks(*comm);
  }
}

TEST(OperationSite, LeavesOutWhatIsNotKnown) {
  EXPECT_EQ(describe({2, {17, 3, "dispatch"}, "all_to_all_v"}), "rank 2: step 17, layer 3, dispatch: all_to_all_v");
  EXPECT_EQ(describe({0, {0, -1, "plan"}, "broadcast"}), "rank 0: step 0, plan: broadcast");
  EXPECT_EQ(describe({1, {}, "barrier"}), "rank 1: barrier");
}

TEST(CommConfig, NamesTheKeyThatCannotWork) {
  EXPECT_NO_THROW(CommConfig{}.validate());
  for (const milliseconds deadline : {milliseconds(-1), milliseconds(0), milliseconds(9), milliseconds(3600001)}) {
    try {
      CommConfig{deadline}.validate();
      ADD_FAILURE() << deadline.count() << " ms was accepted";
    } catch (const InvalidFile& error) {
      EXPECT_THAT(error.what(), HasSubstr("comm.deadline_ms: " + std::to_string(deadline.count()) + " is out of range"));
    }
  }
}

}  // namespace
}  // namespace skipper

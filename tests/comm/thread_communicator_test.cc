#include "comm/thread_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <thread>
#include <vector>

#include "base/error.h"
#include "tests/comm/collective_cases.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

template <typename Action>
std::string comm_error_of(Action action) {
  try {
    action();
  } catch (const CommError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

class ThreadRanks : public testing::TestWithParam<int> {};

TEST_P(ThreadRanks, BroadcastReachesAllRanksFromEveryRoot) {
  spawn_ranks(GetParam(), collective_cases::broadcast_reaches_all_ranks_from_every_root);
}

TEST_P(ThreadRanks, IdleBroadcastReachesAllRanks) {
  spawn_ranks(GetParam(), collective_cases::idle_broadcast_reaches_all_ranks);
}

TEST_P(ThreadRanks, AllGatherIsInRankOrder) { spawn_ranks(GetParam(), collective_cases::all_gather_is_in_rank_order); }

TEST_P(ThreadRanks, AllReduceSumHasEqualBitsOnAllRanks) {
  spawn_ranks(GetParam(), collective_cases::all_reduce_sum_has_equal_bits_on_all_ranks);
}

TEST_P(ThreadRanks, AllToAllVMovesTheTable) { spawn_ranks(GetParam(), collective_cases::all_to_all_v_moves_the_table); }

TEST_P(ThreadRanks, AllToAllVMovesLargeUnevenParts) {
  spawn_ranks(GetParam(), collective_cases::all_to_all_v_moves_large_uneven_parts);
}

TEST_P(ThreadRanks, AllToAllVOfNothingCompletes) {
  spawn_ranks(GetParam(), collective_cases::all_to_all_v_of_nothing_completes);
}

TEST_P(ThreadRanks, OperationsInFlightDoNotMix) {
  spawn_ranks(GetParam(), collective_cases::operations_in_flight_do_not_mix);
}

TEST_P(ThreadRanks, ManyOperationsInARowStayInOrder) {
  spawn_ranks(GetParam(), collective_cases::many_operations_in_a_row_stay_in_order);
}

INSTANTIATE_TEST_SUITE_P(Sizes, ThreadRanks, testing::Values(1, 2, 4));

TEST(ThreadCommunicator, StartReturnsBeforeThePeerHasCome) {
  std::promise<void> rank_0_has_started;
  spawn_ranks(2, [&](Communicator& comm) {
    Stream stream;
    const std::vector<int64_t> ones = {1, 1};
    std::vector<std::byte> send(2, static_cast<std::byte>(comm.rank() + 1));
    std::vector<std::byte> recv(2);
    if (comm.rank() == 1) rank_0_has_started.get_future().wait();
    const auto pending = comm.start_all_to_all_v({send.data(), 2}, ones, {recv.data(), 2}, ones, stream);
    if (comm.rank() == 0) rank_0_has_started.set_value();
    pending->finish();
    EXPECT_EQ(recv, (std::vector<std::byte>{std::byte{1}, std::byte{2}}));
  });
}

TEST(ThreadCommunicator, DeadlineNamesWhereTheRankWaited) {
  const auto communicators = make_thread_communicators(2, {milliseconds(30)});
  Stream stream;
  communicators[1]->set_context({17, 3, "dispatch"});
  const std::vector<int64_t> zeros = {0, 0};
  EXPECT_EQ(comm_error_of([&] { communicators[1]->all_to_all_v({}, zeros, {}, zeros, stream); }),
            "rank 1: step 17, layer 3, dispatch: all_to_all_v did not complete within 30 ms; a rank may be dead or "
            "overloaded (raise comm.deadline_ms)");
}

TEST(ThreadCommunicator, RankThatComesAfterADeadlineFailsToo) {
  const auto communicators = make_thread_communicators(2, {milliseconds(20)});
  Stream stream;
  EXPECT_THROW(communicators[0]->barrier(stream), CommError);
  EXPECT_THAT(comm_error_of([&] { communicators[1]->barrier(stream); }), HasSubstr("rank 0: barrier did not complete"));
}

TEST(ThreadCommunicator, IdleBroadcastOutlastsTheDeadlineButNotItsPatience) {
  spawn_ranks(
      2,
      [](Communicator& comm) {
        Stream stream;
        if (comm.rank() == 0) std::this_thread::sleep_for(milliseconds(200));
        std::byte value{static_cast<unsigned char>(9 * (1 - comm.rank()))};
        comm.idle_broadcast({&value, 1}, 0, std::chrono::hours(24), stream);
        EXPECT_EQ(value, std::byte{9});
      },
      {milliseconds(100)});
  const auto communicators = make_thread_communicators(2, {});
  Stream stream;
  std::byte value{};
  EXPECT_THAT(comm_error_of([&] { communicators[1]->idle_broadcast({&value, 1}, 0, milliseconds(25), stream); }),
              HasSubstr("idle_broadcast did not complete within 25 ms"));
}

TEST(ThreadCommunicator, AbortWakesRanksThatWaitAndFailsLaterOperations) {
  const auto communicators = make_thread_communicators(3, {});
  std::vector<std::future<std::string>> waiting;
  for (size_t rank = 0; rank < 2; ++rank) {
    waiting.push_back(std::async(std::launch::async, [&, rank] {
      Stream stream;
      std::byte value{};
      return comm_error_of([&] {
        if (rank == 0) communicators[rank]->barrier(stream);
        if (rank == 1) communicators[rank]->idle_broadcast({&value, 1}, 0, std::chrono::hours(1), stream);
      });
    }));
  }
  communicators[2]->abort("out of memory on rank 2");
  for (auto& error : waiting) EXPECT_THAT(error.get(), HasSubstr("the group was aborted: out of memory on rank 2"));
  Stream stream;
  EXPECT_THAT(comm_error_of([&] { communicators[2]->barrier(stream); }), HasSubstr("out of memory on rank 2"));
}

TEST(ThreadCommunicator, FailsWhenRanksCallDifferentOperations) {
  EXPECT_THAT(comm_error_of([] {
                spawn_ranks(2, [](Communicator& comm) {
                  Stream stream;
                  std::byte value{};
                  if (comm.rank() == 0) comm.barrier(stream);
                  if (comm.rank() == 1) comm.broadcast({&value, 1}, 0, stream);
                });
              }),
              HasSubstr("another rank called"));
}

TEST(ThreadCommunicator, FailsWhenCountsOfTwoRanksDisagree) {
  EXPECT_THAT(comm_error_of([] {
                spawn_ranks(2, [](Communicator& comm) {
                  Stream stream;
                  std::vector<std::byte> send(8);
                  std::vector<std::byte> recv(8);
                  const std::vector<int64_t> send_counts = {2, comm.rank() == 0 ? 3 : 2};
                  const std::vector<int64_t> recv_counts = {2, 2};
                  comm.all_to_all_v({send.data(), 8}, send_counts, {recv.data(), 8}, recv_counts, stream);
                });
              }),
              HasSubstr("rank 0 gave 3 bytes where 2 were expected"));
}

TEST(ThreadCommunicator, DroppingAnUnfinishedOperationFailsTheGroup) {
  const auto communicators = make_thread_communicators(2, {});
  Stream stream;
  const std::vector<int64_t> zeros = {0, 0};
  communicators[0]->start_all_to_all_v({}, zeros, {}, zeros, stream).reset();
  EXPECT_THAT(comm_error_of([&] { communicators[1]->barrier(stream); }), HasSubstr("all_to_all_v was abandoned"));
}

TEST(SpawnRanks, ThrowsTheFirstExceptionAndWakesTheOtherRanks) {
  EXPECT_THROW(spawn_ranks(4,
                           [](Communicator& comm) {
                             Stream stream;
                             if (comm.rank() == 2) throw InvalidFile("rank 2 has no file");
                             comm.barrier(stream);
                           }),
               InvalidFile);
}

TEST(SpawnRanks, GivesEngineRanksTwoIndependentCommunicators) {
  spawn_engine_ranks(2, [](Communicator& control, Communicator& data) {
    Stream stream;
    if (control.rank() == 0) data.abort("only data");
    control.barrier(stream);
    EXPECT_THROW(data.barrier(stream), CommError);
  });
}

}  // namespace
}  // namespace skipper

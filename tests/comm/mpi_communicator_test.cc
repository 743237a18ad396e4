// Runs under mpirun: every rank runs every test.
#include "comm/mpi_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <thread>
#include <vector>

#include "cluster/control_channel.h"
#include "tests/comm/collective_cases.h"
#include "tests/support/mpi_test_main.h"

namespace skipper {
namespace {

using std::chrono::milliseconds;
using Seconds = std::chrono::duration<double>;

class MpiRanks : public testing::Test {
 protected:
  MpiCommunicator comm_{test_mpi_runtime(), {milliseconds(20000)}, "skipper-test"};
  Stream stream_;
};

TEST_F(MpiRanks, BroadcastReachesAllRanksFromEveryRoot) {
  collective_cases::broadcast_reaches_all_ranks_from_every_root(comm_);
}

TEST_F(MpiRanks, IdleBroadcastReachesAllRanks) { collective_cases::idle_broadcast_reaches_all_ranks(comm_); }

TEST_F(MpiRanks, AllGatherIsInRankOrder) { collective_cases::all_gather_is_in_rank_order(comm_); }

TEST_F(MpiRanks, AllReduceSumHasEqualBitsOnAllRanks) {
  collective_cases::all_reduce_sum_has_equal_bits_on_all_ranks(comm_);
}

TEST_F(MpiRanks, AllToAllVMovesTheTable) { collective_cases::all_to_all_v_moves_the_table(comm_); }

TEST_F(MpiRanks, AllToAllVMovesLargeUnevenParts) { collective_cases::all_to_all_v_moves_large_uneven_parts(comm_); }

TEST_F(MpiRanks, AllToAllVOfNothingCompletes) { collective_cases::all_to_all_v_of_nothing_completes(comm_); }

TEST_F(MpiRanks, OperationsInFlightDoNotMix) { collective_cases::operations_in_flight_do_not_mix(comm_); }

TEST_F(MpiRanks, ManyOperationsInARowStayInOrder) { collective_cases::many_operations_in_a_row_stay_in_order(comm_); }

TEST_F(MpiRanks, TwoCommunicatorsDoNotMix) {
  MpiCommunicator other(test_mpi_runtime(), {milliseconds(20000)}, "skipper-other");
  const std::vector<int64_t> ones(static_cast<size_t>(comm_.size()), 1);
  const auto size = static_cast<size_t>(comm_.size());
  std::vector<std::byte> sent_first(size, std::byte{1});
  std::vector<std::byte> sent_second(size, std::byte{2});
  std::vector<std::byte> first(size);
  std::vector<std::byte> second(size);
  const auto pending_first = comm_.start_all_to_all_v({sent_first.data(), size}, ones, {first.data(), size}, ones, stream_);
  other.all_to_all_v({sent_second.data(), size}, ones, {second.data(), size}, ones, stream_);
  pending_first->finish();
  EXPECT_EQ(first, sent_first);
  EXPECT_EQ(second, sent_second);
}

TEST_F(MpiRanks, KnowThemselves) {
  const MpiRuntime& runtime = test_mpi_runtime();
  EXPECT_TRUE(MpiRuntime::launched());
  EXPECT_EQ(runtime.rank(), comm_.rank());
  EXPECT_EQ(runtime.size(), comm_.size());
  EXPECT_EQ(runtime.node_rank(), runtime.rank());  // the test runs on one host
  EXPECT_EQ(runtime.node_size(), runtime.size());
  EXPECT_FALSE(runtime.host_name().empty());
}

TEST_F(MpiRanks, ControlChannelCarriesPlansOfBothSizes) {
  ControlChannel channel(comm_, {});
  for (const size_t size : {size_t{100}, size_t{100000}}) {
    const std::vector<std::byte> plan(size, static_cast<std::byte>(size % 251));
    if (comm_.rank() == 0) {
      channel.broadcast_plan(plan);
    } else {
      const auto received = channel.receive_plan();
      EXPECT_EQ(std::vector<std::byte>(received.begin(), received.end()), plan);
    }
  }
}

double process_cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

TEST_F(MpiRanks, IdleRankUsesUnderTwoPercentOfACore) {
  constexpr Seconds kIdle{3.0};
  std::byte value{};
  comm_.barrier(stream_);
  const double before = process_cpu_seconds();
  if (comm_.rank() == 0) std::this_thread::sleep_for(kIdle);
  comm_.idle_broadcast({&value, 1}, 0, std::chrono::minutes(1), stream_);
  const double share = (process_cpu_seconds() - before) / kIdle.count();
  EXPECT_LT(share, 0.02);
  std::printf("rank %d: %.2f %% of a core while idle\n", comm_.rank(), 100.0 * share);
}

// Ranks of one host share the monotonic clock.
TEST_F(MpiRanks, IdleRankWakesWithinFiveMilliseconds) {
  std::vector<double> latencies_ms;
  for (int round = 0; round < 25; ++round) {
    comm_.barrier(stream_);
    if (comm_.rank() == 0) std::this_thread::sleep_for(milliseconds(40 + round));
    auto sent = std::chrono::steady_clock::now();
    comm_.idle_broadcast({reinterpret_cast<std::byte*>(&sent), sizeof(sent)}, 0, std::chrono::minutes(1), stream_);
    latencies_ms.push_back(Seconds(std::chrono::steady_clock::now() - sent).count() * 1e3);
  }
  std::sort(latencies_ms.begin(), latencies_ms.end());
  const double median = latencies_ms[latencies_ms.size() / 2];
  // The median: on a loaded machine the scheduler alone can hold a rank back for longer.
  EXPECT_LE(median, 5.0);
  std::printf("rank %d: wakes after %.2f ms (median), %.2f ms (longest)\n", comm_.rank(), median, latencies_ms.back());
}

}  // namespace
}  // namespace skipper

#include "cluster/control_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

#include "base/error.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using Bytes = std::vector<std::byte>;

constexpr size_t kHeaderBytes = 24;
constexpr size_t kHeadBytes = ControlChannel::kFrameBytes - kHeaderBytes;

Bytes numbered_bytes(size_t size, size_t seed) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((seed + i * 13) % 253);
  return bytes;
}

class ControlChannelRanks : public testing::TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(Sizes, ControlChannelRanks, testing::Values(1, 2, 4));

TEST_P(ControlChannelRanks, PlansOfAnySizeReachAllRanks) {
  spawn_ranks(GetParam(), [](Communicator& comm) {
    ControlChannel channel(comm, {});
    for (const size_t size : {size_t{0}, size_t{1}, kHeadBytes - 1, kHeadBytes, kHeadBytes + 1, size_t{100003}, size_t{5}}) {
      const Bytes plan = numbered_bytes(size, size);
      if (comm.rank() == 0) {
        channel.broadcast_plan(plan);
      } else {
        const auto received = channel.receive_plan();
        EXPECT_EQ(Bytes(received.begin(), received.end()), plan) << size << " bytes";
      }
    }
  });
}

TEST_P(ControlChannelRanks, PartsAndRecordsFindTheirRank) {
  spawn_ranks(GetParam(), [](Communicator& comm) {
    ControlChannel channel(comm, {});
    // Rank r gets 3 r + 1 bytes, but rank 2 gets nothing; it answers with the same bytes.
    std::vector<int64_t> counts;
    Bytes parts;
    for (int rank = 0; rank < comm.size(); ++rank) {
      counts.push_back(rank == 2 ? 0 : 3 * rank + 1);
      const Bytes part = numbered_bytes(static_cast<size_t>(counts.back()), static_cast<size_t>(rank));
      parts.insert(parts.end(), part.begin(), part.end());
    }
    const auto my_size = static_cast<size_t>(counts[static_cast<size_t>(comm.rank())]);
    Bytes mine(my_size);
    if (comm.rank() == 0) {
      Bytes all(parts.size());
      channel.scatter({parts.data(), parts.size()}, counts, {mine.data(), mine.size()});
      channel.gather_records({mine.data(), mine.size()}, counts, {all.data(), all.size()});
      EXPECT_EQ(all, parts);
    } else {
      channel.receive_part({mine.data(), mine.size()});
      channel.send_record({mine.data(), mine.size()});
    }
    EXPECT_EQ(mine, numbered_bytes(my_size, static_cast<size_t>(comm.rank())));
  });
}

TEST(ControlChannel, WaitingForAPlanOutlastsTheDeadline) {
  spawn_ranks(
      2,
      [](Communicator& comm) {
        ControlChannel channel(comm, {});
        if (comm.rank() == 0) {
          std::this_thread::sleep_for(milliseconds(300));
          channel.broadcast_plan(numbered_bytes(3, 1));
        } else {
          EXPECT_EQ(channel.receive_plan().size(), 3u);
        }
      },
      {milliseconds(150)});
}

TEST(ControlChannel, SilenceBeyondThePatienceIsAnError) {
  ClusterConfig impatient;
  impatient.plan_patience = milliseconds(20);
  EXPECT_THROW(spawn_ranks(2,
                           [&](Communicator& comm) {
                             ControlChannel channel(comm, impatient);
                             if (comm.rank() == 1) channel.receive_plan();
                           }),
               CommError);
}

TEST(ControlChannel, RecordOfAnUnexpectedSizeIsAnError) {
  EXPECT_THROW(spawn_ranks(2,
                           [](Communicator& comm) {
                             ControlChannel channel(comm, {});
                             Bytes bytes(8);
                             const std::vector<int64_t> counts = {0, 4};
                             if (comm.rank() == 0) channel.gather_records({}, counts, {bytes.data(), 4});
                             if (comm.rank() == 1) channel.send_record({bytes.data(), 5});
                           }),
               CommError);
}

TEST(ControlChannel, PlanOverTheLimitIsRefusedBeforeItIsSent) {
  ClusterConfig small;
  small.max_plan_bytes = 4096;
  EXPECT_THROW(spawn_ranks(1,
                           [&](Communicator& comm) {
                             ControlChannel(comm, small).broadcast_plan(numbered_bytes(4097, 0));
                           }),
               CommError);
}

// Frames as a rank of another build, or one that lost count, would send them.
struct ForeignFrame {
  const char* name;
  uint32_t magic;
  uint32_t version;
  int64_t plan_number;
  int64_t plan_bytes;
  const char* expected;
};

void PrintTo(const ForeignFrame& frame, std::ostream* out) { *out << frame.name; }

class ControlChannelFrames : public testing::TestWithParam<ForeignFrame> {};

constexpr uint32_t kMagic = 0x4e504b53;

TEST_P(ControlChannelFrames, AreRefused) {
  const ForeignFrame& foreign = GetParam();
  Bytes frame(ControlChannel::kFrameBytes);
  std::memcpy(frame.data(), &foreign.magic, 4);
  std::memcpy(frame.data() + 4, &foreign.version, 4);
  std::memcpy(frame.data() + 8, &foreign.plan_number, 8);
  std::memcpy(frame.data() + 16, &foreign.plan_bytes, 8);
  spawn_ranks(2, [&](Communicator& comm) {
    if (comm.rank() == 0) {
      Stream stream;
      Bytes copy = frame;
      comm.idle_broadcast({copy.data(), copy.size()}, 0, milliseconds(30000), stream);
      return;
    }
    ControlChannel channel(comm, {});
    try {
      const size_t size = channel.receive_plan().size();
      EXPECT_STREQ(foreign.expected, "accepted") << size;
    } catch (const CommError& error) {
      EXPECT_THAT(error.what(), HasSubstr(foreign.expected));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Foreign, ControlChannelFrames,
                         testing::Values(ForeignFrame{"Good", kMagic, 1, 0, 7, "accepted"},
                                         ForeignFrame{"Garbage", 0xffffffff, 1, 0, 7, "magic number"},
                                         ForeignFrame{"OtherVersion", kMagic, 2, 0, 7, "version 2, expected 1"},
                                         ForeignFrame{"LostCount", kMagic, 1, 3, 7, "plan number 3, expected 0"},
                                         ForeignFrame{"NegativeSize", kMagic, 1, 0, -1, "-1 bytes"},
                                         ForeignFrame{"HugeSize", kMagic, 1, 0, int64_t{1} << 60, "max_plan_bytes"}),
                         [](const auto& test) { return test.param.name; });

TEST(ClusterConfig, NamesTheKeyThatCannotWork) {
  EXPECT_NO_THROW(ClusterConfig{}.validate());
  ClusterConfig config;
  config.plan_patience = milliseconds(1);
  try {
    config.validate();
    FAIL() << "nothing was thrown";
  } catch (const InvalidFile& error) {
    EXPECT_THAT(error.what(), HasSubstr("cluster.plan_patience_ms: 1 is out of range"));
  }
}

}  // namespace
}  // namespace skipper

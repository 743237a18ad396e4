#include "residency/async_reader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <random>
#include <vector>

#include "base/error.h"

namespace skipper {
namespace {

// A file whose byte at x is a hash of x.
class ReaderTest : public ::testing::TestWithParam<ReadMethod> {
 protected:
  static constexpr size_t kFileBytes = size_t{5} << 20;

  static std::byte byte_at(uint64_t offset) { return static_cast<std::byte>((offset * 2654435761u) >> 13); }

  ReaderTest() {
    std::vector<char> bytes(kFileBytes);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(byte_at(i));
    std::ofstream(path_, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  ~ReaderTest() override { std::filesystem::remove(path_); }

  static bool holds(const std::byte* memory, uint64_t offset, size_t num_bytes) {
    for (size_t i = 0; i < num_bytes; ++i) {
      if (memory[i] != byte_at(offset + i)) return false;
    }
    return true;
  }

  const std::filesystem::path path_ =
      std::filesystem::current_path() / ("async_reader_test_" + std::to_string(::getpid()) + ".bin");
};

TEST_P(ReaderTest, ReadsWhatTheFileHolds) {
  const DirectFile file(path_);
  EXPECT_EQ(file.num_bytes(), kFileBytes);
  AsyncReader reader(file, GetParam());
  // io_uring may not be allowed here; pread always is.
  EXPECT_TRUE(reader.method() == GetParam() || GetParam() == ReadMethod::kIoUring);
  const size_t sizes[] = {4096, 8192, size_t{512} << 10, (size_t{512} << 10) + 4096, size_t{3} << 20};
  const auto memory = allocate_for_direct_reads(size_t{3} << 20);
  for (const size_t size : sizes) {
    const uint64_t offset = 4096 * (size % 7);
    reader.wait(reader.start({offset, size, memory.get()}, ReadUrgency::kDemand));
    EXPECT_TRUE(holds(memory.get(), offset, size)) << size;
  }
  EXPECT_EQ(reader.counters().num_bytes, static_cast<int64_t>(4096 + 8192 + (size_t{1} << 20) + 4096 + (size_t{3} << 20)));
  EXPECT_GT(reader.counters().busy_seconds, 0.0);
}

TEST_P(ReaderTest, KeepsManyReadsApart) {
  const DirectFile file(path_);
  AsyncReader reader(file, GetParam());
  constexpr size_t kReads = 60, kBytes = 65536;
  const auto memory = allocate_for_direct_reads(kReads * kBytes);
  std::vector<uint64_t> tickets;
  for (size_t i = 0; i < kReads; ++i) {
    tickets.push_back(reader.start({i * kBytes, kBytes, memory.get() + i * kBytes},
                                   i % 3 == 0 ? ReadUrgency::kDemand : ReadUrgency::kForesight));
  }
  std::mt19937 generator(1);
  std::vector<size_t> order(kReads);
  for (size_t i = 0; i < kReads; ++i) order[i] = i;
  std::ranges::shuffle(order, generator);
  for (const size_t i : order) {
    reader.hasten(tickets[i]);
    reader.wait(tickets[i]);
    EXPECT_TRUE(holds(memory.get() + i * kBytes, i * kBytes, kBytes)) << i;
  }
}

TEST_P(ReaderTest, WritesNothingMoreAfterCancel) {
  const DirectFile file(path_);
  AsyncReader reader(file, GetParam());
  const auto memory = allocate_for_direct_reads(size_t{4} << 20);
  for (int round = 0; round < 50; ++round) {
    const uint64_t ticket = reader.start({0, size_t{4} << 20, memory.get()},
                                         round % 2 == 0 ? ReadUrgency::kDemand : ReadUrgency::kForesight);
    reader.cancel(ticket);
    std::fill_n(memory.get(), 4096, std::byte{0x5a});
    reader.wait(reader.start({4096, 4096, memory.get() + 4096}, ReadUrgency::kDemand));
    EXPECT_EQ(memory.get()[0], std::byte{0x5a});
    EXPECT_EQ(memory.get()[4095], std::byte{0x5a});
  }
}

TEST_P(ReaderTest, EndsWithReadsUnderWay) {
  const DirectFile file(path_);
  const auto memory = allocate_for_direct_reads(size_t{4} << 20);
  for (int round = 0; round < 20; ++round) {
    AsyncReader reader(file, GetParam());
    reader.start({0, size_t{4} << 20, memory.get()}, ReadUrgency::kDemand);
    reader.start({0, size_t{1} << 20, memory.get()}, ReadUrgency::kForesight);
  }
}

TEST_P(ReaderTest, NamesTheFileThatEndsTooEarly) {
  const DirectFile file(path_);
  AsyncReader reader(file, GetParam());
  const auto memory = allocate_for_direct_reads(size_t{1} << 20);
  const uint64_t ticket = reader.start({kFileBytes - 4096, 8192, memory.get()}, ReadUrgency::kDemand);
  try {
    reader.wait(ticket);
    FAIL() << "read beyond the end";
  } catch (const InvalidFile& error) {
    EXPECT_NE(std::string(error.what()).find(path_.string()), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("the file ends before"), std::string::npos) << error.what();
  }
  // The reader goes on.
  reader.wait(reader.start({0, 4096, memory.get()}, ReadUrgency::kDemand));
  EXPECT_TRUE(holds(memory.get(), 0, 4096));
}

INSTANTIATE_TEST_SUITE_P(Methods, ReaderTest, ::testing::Values(ReadMethod::kIoUring, ReadMethod::kBlocking),
                         [](const auto& test) { return test.param == ReadMethod::kIoUring ? "IoUring" : "Blocking"; });

TEST(DirectFile, NamesAFileThatIsNotThere) {
  try {
    DirectFile file("nowhere/experts.bin");
    FAIL() << "opened";
  } catch (const InvalidFile& error) {
    EXPECT_NE(std::string(error.what()).find("nowhere/experts.bin: cannot be opened"), std::string::npos) << error.what();
  }
}

TEST(DirectFile, ReadsThroughThePageCacheWhereItMust) {
  // A file system in memory; whether it refuses direct reads depends on the kernel, that it can be read does not.
  const std::filesystem::path path = "/dev/shm/direct_file_test_" + std::to_string(::getpid());
  std::ofstream(path, std::ios::binary) << std::string(4096, 'x');
  {
    const DirectFile file(path);
    AsyncReader reader(file);
    const auto memory = allocate_for_direct_reads(4096);
    reader.wait(reader.start({0, 4096, memory.get()}, ReadUrgency::kDemand));
    EXPECT_EQ(memory.get()[4095], std::byte{'x'});
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace skipper

#include "residency/expert_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>

#include "base/error.h"
#include "tests/residency/made_experts.h"

namespace skipper {
namespace {

class ExpertFileTest : public ::testing::Test {
 protected:
  ExpertFileTest() { std::filesystem::create_directory(folder_); }
  ~ExpertFileTest() override { std::filesystem::remove_all(folder_); }

  std::string error_of(const std::function<void()>& work) const {
    try {
      work();
    } catch (const InvalidFile& error) {
      return error.what();
    }
    return "";
  }

  // Changes one byte of the file.
  void damage(uint64_t offset) const {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get() ^ 0x40);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }

  const std::filesystem::path folder_ =
      std::filesystem::current_path() / ("expert_file_test_" + std::to_string(::getpid()));
  const std::filesystem::path path_ = folder_ / "experts";
};

TEST_F(ExpertFileTest, IsFoundAgainAsItWasWritten) {
  const MadeExperts made(path_, 11);
  ExpertFileContent wanted = made.wanted();
  ASSERT_TRUE(find_expert_file(path_, wanted));
  ASSERT_EQ(wanted.records.size(), made.content().records.size());
  for (size_t i = 0; i < wanted.records.size(); ++i) {
    EXPECT_EQ(wanted.records[i].hash, made.content().records[i].hash);
    EXPECT_EQ(wanted.records[i].offset % 4096, 0u);
    EXPECT_EQ(wanted.records[i].offset, made.content().records[i].offset);
  }
  check_expert_file(path_, wanted, kMadeShape, made_hash);
  EXPECT_FALSE(std::filesystem::exists(path_.string() + ".partial"));
}

TEST_F(ExpertFileTest, IsNotFoundForOtherExperts) {
  const MadeExperts made(path_, 3);
  const auto is_found = [&](const std::function<void(ExpertFileContent&)>& change) {
    ExpertFileContent wanted = made.wanted();
    change(wanted);
    return find_expert_file(path_, wanted);
  };
  EXPECT_TRUE(is_found([](ExpertFileContent&) {}));
  EXPECT_FALSE(is_found([](ExpertFileContent& c) { c.subject.model_fingerprint = "00000000000000ff"; }));
  EXPECT_FALSE(is_found([](ExpertFileContent& c) { c.subject.checkpoint = "later"; }));
  EXPECT_FALSE(is_found([](ExpertFileContent& c) { c.subject.rank = 1; }));
  EXPECT_FALSE(is_found([](ExpertFileContent& c) { c.records[1].format = parse_weight_format("int2a-g32", "test"); }));
  EXPECT_FALSE(is_found([](ExpertFileContent& c) { c.records[1].id.expert += 1; }));
  EXPECT_FALSE(is_found([](ExpertFileContent& c) { c.records[1].hash = "00000000000000ff"; }));
  EXPECT_FALSE(is_found([](ExpertFileContent& c) { c.records.pop_back(); }));
  ExpertFileContent wanted = made.wanted();
  EXPECT_FALSE(find_expert_file(folder_ / "none", wanted));
}

TEST_F(ExpertFileTest, IsRefusedWhenItIsCutOff) {
  const MadeExperts made(path_, 3);
  ExpertFileContent wanted = made.wanted();
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 4096);
  EXPECT_NE(error_of([&] { find_expert_file(path_, wanted); }).find("but its header speaks of"), std::string::npos);
  std::filesystem::resize_file(path_, 40);
  EXPECT_NE(error_of([&] { find_expert_file(path_, wanted); }).find("ends within its header"), std::string::npos);
  std::filesystem::resize_file(path_, 3);
  EXPECT_NE(error_of([&] { find_expert_file(path_, wanted); }).find("is no expert file of Skipper"), std::string::npos);
}

TEST_F(ExpertFileTest, IsRefusedWhenItIsSomebodyElses) {
  std::ofstream(path_) << "a letter to nobody in particular";
  ExpertFileContent wanted;
  const std::string error = error_of([&] { find_expert_file(path_, wanted); });
  EXPECT_NE(error.find(path_.string() + ": is no expert file of Skipper"), std::string::npos) << error;
  EXPECT_EQ(error.find('\n'), std::string::npos);
}

TEST_F(ExpertFileTest, NamesTheRecordThatIsDamaged) {
  const MadeExperts made(path_, 5);
  damage(made.content().records[3].offset + 17);
  ExpertFileContent wanted = made.wanted();
  ASSERT_TRUE(find_expert_file(path_, wanted));
  const std::string error = error_of([&] { check_expert_file(path_, wanted, kMadeShape, made_hash); });
  const ExpertId id = wanted.records[3].id;
  EXPECT_NE(error.find("expert " + std::to_string(id.expert) + " of MoE layer " + std::to_string(id.layer) + " has the hash "),
            std::string::npos)
      << error;
}

TEST_F(ExpertFileTest, LeavesNothingWithoutCommit) {
  const MadeExperts made(path_, 2);
  const auto before = std::filesystem::last_write_time(path_);
  ExpertFileContent content = made.wanted();
  lay_out(content);
  {
    ExpertFileWriter writer(path_, content);
    EXPECT_TRUE(std::filesystem::exists(path_.string() + ".partial"));
    EXPECT_NE(error_of([&] { ExpertFileWriter second(path_, content); }).find("is being written by another process"),
              std::string::npos);
  }
  EXPECT_FALSE(std::filesystem::exists(path_.string() + ".partial"));
  EXPECT_EQ(std::filesystem::last_write_time(path_), before);
}

TEST_F(ExpertFileTest, SaysThatTheDiskIsFull) {
  // More than any disk has: the room is taken before a byte is written.
  ExpertFileContent content{.subject = {.hidden_size = int64_t{1} << 24, .intermediate_size = int64_t{1} << 24}, .records = {}};
  for (int32_t expert = 0; expert < 64; ++expert) content.records.push_back({.id = {0, expert}, .format = {}});
  lay_out(content);
  const std::string error = error_of([&] { ExpertFileWriter writer(path_, content); });
  EXPECT_NE(error.find("no room for "), std::string::npos) << error;
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(ExpertFileTest, SaysThatTheFolderIsNotThere) {
  EXPECT_NE(error_of([&] { ExpertFileWriter writer(folder_ / "none" / "experts", {}); }).find("cannot be written"),
            std::string::npos);
}

TEST(ExpertRecord, HoldsEveryFormatAsItWasInMemory) {
  for (const std::string& name : weight_format_names()) {
    const WeightFormat format = parse_weight_format(name, "test");
    const ExpertMatrices expert = made_expert(format, 7);
    const size_t size = record_bytes(format, kMadeShape);
    EXPECT_EQ(size % 4096, 0u);
    const auto memory = allocate_for_direct_reads(size);
    fill_record(expert, kMadeShape, memory.get());
    const ExpertMatrices record = record_at(memory.get(), format, kMadeShape);
    EXPECT_EQ(made_hash(record), made_hash(expert)) << name;
    EXPECT_EQ(record.gate_up.activations, expert.gate_up.activations) << name;
    EXPECT_EQ(record.down.num_columns, expert.down.num_columns) << name;
  }
}

}  // namespace
}  // namespace skipper

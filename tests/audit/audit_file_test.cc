#include "audit/audit_file.h"

#include <gtest/gtest.h>

#include <sstream>

#include "audit/audit_reader.h"
#include "base/error.h"

namespace skipper {
namespace {

class AuditFileTest : public ::testing::Test {
 protected:
  std::string text() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write(const std::string& text) const { std::ofstream(path_, std::ios::binary) << text; }

  static AuditHeader header() {
    return {.model_fingerprint = "abc", .num_moe_layers = 1, .num_experts = 4, .node_of_rank = {0}, .bytes_per_row = 8};
  }
  static RoutingRecord record(int32_t position) {
    RoutingRecord record;
    record.position = position;
    record.experts = {1, 2};
    record.weights = {0.5f, 0.5f};
    record.kept = {true, true};
    record.destinations = {0};
    return record;
  }

  const std::filesystem::path path_ = std::filesystem::path(::testing::TempDir()) /
                                      (std::string("audit_") +
                                       ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".jsonl");
};

TEST_F(AuditFileTest, HoldsEveryLineInOrderAfterItsEnd) {
  {
    AuditFile file(path_, 1 << 20);
    file.append(to_line(header()));
    for (int32_t i = 0; i < 1000; ++i) file.append(record(i));
  }
  AuditReader reader(path_);
  EXPECT_EQ(reader.header(), header());
  for (int32_t i = 0; i < 1000; ++i) EXPECT_EQ(std::get<RoutingRecord>(reader.next().value()), record(i));
  EXPECT_FALSE(reader.next());
  EXPECT_FALSE(reader.last_line_was_cut_off());
}

TEST_F(AuditFileTest, EndsWithAWholeLineWhenItIsFull) {
  {
    AuditFile file(path_, 10);
    file.append(std::string("four\n"));
    file.append(std::string("seven..\n"));
    file.append(std::string("one\n"));
  }
  EXPECT_EQ(text(), "four\n");
}

TEST_F(AuditFileTest, WithoutLinesIsEmpty) {
  { AuditFile file(path_, 10); }
  EXPECT_EQ(text(), "");
}

TEST_F(AuditFileTest, RefusesAPathThatCannotBeWritten) {
  EXPECT_THROW(AuditFile("/nowhere/audit.jsonl", 10), Error);
}

TEST_F(AuditFileTest, ReaderLeavesOutALastLineThatWasCutOff) {
  const std::string line = to_line(record(1));
  write(to_line(header()) + line + line.substr(0, line.size() / 2));
  AuditReader reader(path_);
  EXPECT_TRUE(reader.next());
  EXPECT_FALSE(reader.next());
  EXPECT_TRUE(reader.last_line_was_cut_off());
}

TEST_F(AuditFileTest, ReaderRefusesADamagedLineInTheMiddle) {
  write(to_line(header()) + "{\n" + to_line(record(1)));
  AuditReader reader(path_);
  EXPECT_THROW(reader.next(), InvalidFile);
  EXPECT_TRUE(reader.where().ends_with(": line 2"));
}

TEST_F(AuditFileTest, ReaderRefusesMissingFilesFoldersAndEmptyFiles) {
  EXPECT_THROW(AuditReader(path_.string() + ".none"), InvalidFile);
  EXPECT_THROW(AuditReader(std::filesystem::path(::testing::TempDir())), InvalidFile);
  write("");
  EXPECT_THROW(AuditReader reader(path_), InvalidFile);
}

}  // namespace
}  // namespace skipper

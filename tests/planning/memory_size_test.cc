#include "planning/memory_size.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace skipper {
namespace {

TEST(MemorySize, ReadsPowersOf1000And1024) {
  EXPECT_EQ(parse_memory_size("2G", "m"), 2'000'000'000u);
  EXPECT_EQ(parse_memory_size("24Gi", "m"), size_t{24} << 30);
  EXPECT_EQ(parse_memory_size("1.5T", "m"), 1'500'000'000'000u);
  EXPECT_EQ(parse_memory_size("512M", "m"), 512'000'000u);
  EXPECT_EQ(parse_memory_size("0", "m"), 0u);
  EXPECT_EQ(parse_memory_size("17", "m"), 17u);
  EXPECT_EQ(parse_memory_sizes("1K,2Ki,3", "m"), (std::vector<size_t>{1000, 2048, 3}));
}

TEST(MemorySize, RefusesWhatIsNoSizeAndNamesIt) {
  for (const char* text : {"", "G", "2GB", "2g", "-1G", "nan", "inf", "2 G", "1e30", "2Gb", "2iG"}) {
    EXPECT_THROW(parse_memory_size(text, "flag --memory"), InvalidRequest) << text;
  }
  try {
    parse_memory_sizes("2G,two", "flag --memory");
    FAIL();
  } catch (const InvalidRequest& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("flag --memory: 'two'"));
  }
  EXPECT_THROW(parse_memory_sizes("2G,", "m"), InvalidRequest);
}

TEST(MemorySize, IsPrintedInMegabytesAndGigabytes) {
  EXPECT_EQ(memory_text(1'500'000), "1.5 MB");
  EXPECT_EQ(memory_text(2'500'000'000), "2.50 GB");
}

}  // namespace
}  // namespace skipper

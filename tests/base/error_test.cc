#include "base/error.h"

#include <gtest/gtest.h>

namespace skipper {
namespace {

TEST(Error, KnowsFolderFileAndLineOfTheThrow) {
  const InvalidFile error("model/x: missing");
  EXPECT_STREQ(error.what(), "model/x: missing");
  EXPECT_EQ(error.location().substr(0, error.location().find(':')), "base/error_test.cc");
}

TEST(InvalidRequest, NamesFieldAndCode) {
  const InvalidRequest error("too long", "messages", "context_length_exceeded");
  EXPECT_EQ(error.param(), "messages");
  EXPECT_EQ(error.code(), "context_length_exceeded");
}

}  // namespace
}  // namespace skipper

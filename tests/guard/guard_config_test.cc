#include "guard/guard_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace skipper {
namespace {

using testing::HasSubstr;

std::string error_of(const GuardConfig& config) {
  try {
    config.validate();
  } catch (const InvalidFile& error) {
    return error.what();
  }
  return {};
}

TEST(GuardConfig, IsOffAndValidByDefault) {
  const GuardConfig config;
  EXPECT_FALSE(config.is_on());
  EXPECT_EQ(error_of(config), "");
}

TEST(GuardConfig, NamesKeyValueAndRange) {
  EXPECT_THAT(error_of({.share = 1.5}), HasSubstr("guard.share: 1.5 is outside of 0 to 1"));
  EXPECT_THAT(error_of({.share = 0.1, .max_error_ratio = 0.5}), HasSubstr("guard.max_error_ratio: 0.5"));
  EXPECT_THAT(error_of({.share = 0.1, .max_kl = 0.0}), HasSubstr("guard.max_kl: 0"));
  EXPECT_THAT(error_of({.share = 0.1, .min_rows = 300}), HasSubstr("guard.min_rows"));
}

TEST(GuardConfig, RefusesToScoreRequestsWithoutReferenceExperts) {
  EXPECT_THAT(error_of({.request_share = 0.5}), HasSubstr("guard.request_share: 0.5 needs reference experts"));
}

}  // namespace
}  // namespace skipper

#include "frontend/frontend_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace skipper {
namespace {

std::string refusal(const FrontendConfig& config) {
  try {
    config.validate();
  } catch (const InvalidFile& error) {
    return error.what();
  }
  return "accepted";
}

TEST(FrontendConfig, DefaultsAreValid) { EXPECT_EQ(refusal(FrontendConfig{}), "accepted"); }

TEST(FrontendConfig, NamesTheKeyOutOfRange) {
  FrontendConfig config;
  config.port = 65536;
  EXPECT_THAT(refusal(config), ::testing::HasSubstr("frontend.port"));
  config = {};
  config.max_connections = 0;
  EXPECT_THAT(refusal(config), ::testing::HasSubstr("frontend.max_connections"));
  config = {};
  config.header_timeout = std::chrono::milliseconds(0);
  EXPECT_THAT(refusal(config), ::testing::HasSubstr("frontend.header_timeout_ms"));
  config = {};
  config.max_body_bytes = size_t{1} << 62;
  EXPECT_THAT(refusal(config), ::testing::HasSubstr("frontend.max_body_bytes"));
  config = {};
  config.host = "";
  EXPECT_THAT(refusal(config), ::testing::HasSubstr("frontend.host"));
}

TEST(FrontendConfig, RefusesABudgetThatCannotHoldOneBody) {
  FrontendConfig config;
  config.max_inflight_body_bytes = config.max_body_bytes - 1;
  EXPECT_THAT(refusal(config), ::testing::HasSubstr("frontend.max_inflight_body_bytes"));
}

}  // namespace
}  // namespace skipper

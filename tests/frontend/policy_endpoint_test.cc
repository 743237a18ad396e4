#include "frontend/policy_endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::string error_of(const std::string& body) {
  try {
    parse_policy_request(body);
  } catch (const InvalidRequest& error) {
    return error.what();
  }
  return "";
}

TEST(PolicyRequest, NamesAPolicyOrAMemory) {
  const PolicyRequest named = parse_policy_request(R"({"policy": "small", "deadline_seconds": 0.5})");
  EXPECT_EQ(named.policy, "small");
  EXPECT_EQ(named.memory, "");
  EXPECT_EQ(named.deadline, std::chrono::milliseconds(500));
  const PolicyRequest memory = parse_policy_request(R"({"memory": "210M", "extra_memory": "60M"})");
  EXPECT_EQ(memory.policy, "");
  EXPECT_EQ(memory.memory, "210M");
  EXPECT_EQ(memory.extra_memory, "60M");
  EXPECT_EQ(memory.deadline, std::chrono::seconds(60));
  EXPECT_EQ(parse_policy_request(R"({"memory": ["210M", "207M"]})").memory, "210M,207M");
}

TEST(PolicyRequest, RefusesWhatIsNeitherOrBoth) {
  EXPECT_THAT(error_of("{}"), HasSubstr("policy"));
  EXPECT_THAT(error_of(R"({"policy": "a", "memory": "1G"})"), HasSubstr("memory: does not go with policy"));
  EXPECT_THAT(error_of(R"({"memory": []})"), HasSubstr("memory: is an empty list"));
  EXPECT_THAT(error_of(R"({"memory": ["1G", 3]})"), HasSubstr("memory: expected sizes"));
  EXPECT_THAT(error_of(R"({"memory": 3})"), HasSubstr("memory"));
  EXPECT_THAT(error_of(R"({"policy": "a", "wait": 1})"), HasSubstr("wait: no such key"));
}

TEST(PolicyResponse, TellsWhatTheLastSwitchFreed) {
  PolicyReport report{.policies = {"a"}, .state = {}};
  report.state.policy = "memory:1G";
  report.state.predicted_loss = 0.5;
  report.state.last = {.request = 3, .policy = "memory:1G"};
  EXPECT_TRUE(json::parse(policy_response(report).body)["last"]["freed_seconds"].is_null());
  report.state.last.freed_seconds = 0.25;
  report.state.last.memory = {{.before = 5, .with_both = 7, .after = 4}};
  const json body = json::parse(policy_response(report).body);
  EXPECT_EQ(body["predicted_loss"], 0.5);
  EXPECT_EQ(body["last"]["freed_seconds"], 0.25);
  EXPECT_EQ(body["last"]["resident_bytes"], json::array({{{"before", 5}, {"with_both", 7}, {"after", 4}}}));
}

TEST(PolicyResponse, TellsWhatASwitchWaitsFor) {
  PolicyReport report{.policies = {"a", "b"}, .state = {}};
  report.state.staged_policy = "b";
  report.state.ranks_ready = 2;
  EXPECT_TRUE(json::parse(policy_response(report).body)["staging"]["waits_for_tier"].is_null());
  report.state.waits_for_tier = "gold";
  EXPECT_EQ(json::parse(policy_response(report).body)["staging"]["waits_for_tier"], "gold");
}

}  // namespace
}  // namespace skipper

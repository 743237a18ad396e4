#include "frontend/skipper_field.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const std::map<std::string, int64_t> kTiers = {{"gold", 0}, {"silver", 2}, {"bronze", 9}, {"flex", 3}};
constexpr RequestedLevel kFollowing{.level = UINT8_MAX, .choice = LevelChoice::kGlobal};

RequestedLevel parse(const json& body) {
  return parse_requested_level(RequestFields(body, ""), {.highest_level = 5, .service_tiers = kTiers});
}

RequestedLevel following_up_to(uint8_t level) { return {.level = level, .choice = LevelChoice::kGlobal}; }
RequestedLevel own(uint8_t level) { return {.level = level, .choice = LevelChoice::kOwn}; }

struct FieldRefusal {
  std::string message, param;
};

FieldRefusal refusal(const json& body) {
  try {
    parse(body);
  } catch (const InvalidRequest& error) {
    return {error.what(), error.param()};
  }
  return {"ACCEPTED", "ACCEPTED"};
}

TEST(SkipperField, FollowsTheEngineUnlessALevelIsNamed) {
  EXPECT_EQ(parse(json::object()), kFollowing);
  for (const char* tier : {"auto", "default", "priority"}) EXPECT_EQ(parse({{"service_tier", tier}}), kFollowing) << tier;
  EXPECT_EQ(parse({{"service_tier", nullptr}, {"skipper", nullptr}}), kFollowing);
  EXPECT_EQ(parse({{"skipper", json::object()}}), kFollowing);
  EXPECT_EQ(parse({{"skipper", {{"level", nullptr}, {"full_quality", false}}}}), kFollowing);
}

TEST(SkipperField, ATierIsACeiling) {
  EXPECT_EQ(parse({{"service_tier", "gold"}}), following_up_to(0));
  EXPECT_EQ(parse({{"service_tier", "silver"}}), following_up_to(2));
  EXPECT_EQ(parse({{"service_tier", "flex"}}), following_up_to(3));
  EXPECT_EQ(parse({{"service_tier", "bronze"}}), following_up_to(5)) << "the table has no level 9";
  EXPECT_EQ(parse({{"service_tier", "silver"}, {"skipper", {{"level", 2}}}}), own(2));
  const FieldRefusal above = refusal({{"service_tier", "silver"}, {"skipper", {{"level", 3}}}});
  EXPECT_EQ(above.param, "skipper.level");
  EXPECT_THAT(above.message, HasSubstr("3 is above the ceiling of service_tier silver, which is 2"));
  EXPECT_EQ(refusal({{"service_tier", "gold"}, {"skipper", {{"level", 1}}}}).param, "skipper.level");
}

TEST(SkipperField, AnEntryForAutoIsTheCeilingOfRequestsWithoutATier) {
  const std::map<std::string, int64_t> tiers = {{"auto", 1}};
  const auto level_of = [&](const json& body) {
    return parse_requested_level(RequestFields(body, ""), {.highest_level = 5, .service_tiers = tiers});
  };
  EXPECT_EQ(level_of(json::object()), following_up_to(1));
  EXPECT_EQ(level_of({{"service_tier", "auto"}}), following_up_to(1));
  EXPECT_EQ(level_of({{"service_tier", "flex"}}), kFollowing);
  EXPECT_THROW(level_of({{"skipper", {{"level", 2}}}}), InvalidRequest);
}

// Level 5 was uploaded and skips no more than level 2.
TEST(SkipperField, ATierTakesAnUploadedLevelThatSkipsNoMoreThanItsCeiling) {
  const std::vector<uint16_t> places = {0, 1, 2, 3, 4, 2};
  const auto level_of = [&](const json& body) {
    return parse_requested_level(RequestFields(body, ""), {.highest_level = 5, .service_tiers = kTiers, .places = places});
  };
  EXPECT_EQ(level_of({{"service_tier", "silver"}, {"skipper", {{"level", 5}}}}), own(5));
  EXPECT_EQ(level_of({{"skipper", {{"level", 5}}}}), own(5));
  EXPECT_THROW(level_of({{"service_tier", "silver"}, {"skipper", {{"level", 3}}}}), InvalidRequest);
  EXPECT_THROW(level_of({{"service_tier", "gold"}, {"skipper", {{"level", 5}}}}), InvalidRequest);
}

TEST(SkipperField, TakesALevelUpToTheServersHighest) {
  for (const uint8_t level : {0, 1, 5}) EXPECT_EQ(parse({{"skipper", {{"level", level}}}}), own(level));
  const FieldRefusal above = refusal({{"skipper", {{"level", 6}}}});
  EXPECT_EQ(above.param, "skipper.level");
  EXPECT_THAT(above.message, HasSubstr("6 is above this server's ceiling of 5"));
  EXPECT_EQ(refusal({{"skipper", {{"level", 256}}}}).param, "skipper.level");
  EXPECT_EQ(refusal({{"skipper", {{"level", -1}}}}).param, "skipper.level");
  EXPECT_EQ(refusal({{"skipper", {{"level", 1.5}}}}).param, "skipper.level");
  EXPECT_EQ(refusal({{"skipper", {{"level", "1"}}}}).param, "skipper.level");
}

TEST(SkipperField, FullQualityIsLevelZeroOfItsOwn) {
  EXPECT_EQ(parse({{"skipper", {{"full_quality", true}}}}), own(0));
  EXPECT_EQ(parse({{"service_tier", "flex"}, {"skipper", {{"full_quality", true}, {"level", 0}}}}), own(0));
  EXPECT_THAT(refusal({{"skipper", {{"full_quality", true}, {"level", 1}}}}).message, HasSubstr("contradicts"));
  EXPECT_EQ(refusal({{"skipper", {{"full_quality", 1}}}}).param, "skipper.full_quality");
}

TEST(SkipperField, RefusesUnknownKeysAndTiersByName) {
  EXPECT_EQ(refusal({{"skipper", {{"levl", 1}}}}).param, "skipper.levl");
  EXPECT_EQ(refusal({{"skipper", 3}}).param, "skipper");
  EXPECT_EQ(refusal({{"service_tier", 1}}).param, "service_tier");
  const FieldRefusal unknown = refusal({{"service_tier", "platinum"}});
  EXPECT_EQ(unknown.param, "service_tier");
  EXPECT_THAT(unknown.message, HasSubstr("auto, default, flex, priority, bronze, flex, gold, silver"));
}

}  // namespace
}  // namespace skipper

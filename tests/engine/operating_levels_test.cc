#include "engine/operating_levels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"

namespace skipper {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

OperatingPoint scaled_point(float tau) {
  OperatingPoint result = unskipped_levels(2).levels.front();
  result.tau = {tau, tau};
  return result;
}

// What an engine does around a step.
OperatingLevels::Change apply(OperatingLevels& levels) {
  OperatingLevels::Change change = levels.take();
  levels.confirm(change);
  return change;
}

TEST(OperatingLevels, AChangeIsInForceOnlyAfterTheStepThatAppliedIt) {
  OperatingLevels levels(unskipped_levels(2));
  const uint64_t change = levels.append(scaled_point(0.5f));
  EXPECT_EQ(levels.level(), 0);
  EXPECT_EQ(levels.num_levels(), 1);
  EXPECT_FALSE(levels.wait_until_in_force(change, milliseconds(0)));
  const OperatingLevels::Change taken = levels.take();
  ASSERT_TRUE(taken.table.has_value());
  EXPECT_EQ(taken.table->version, 2u);
  EXPECT_EQ(taken.level, 1);
  EXPECT_FALSE(levels.wait_until_in_force(change, milliseconds(0)));
  levels.confirm(taken);
  EXPECT_TRUE(levels.wait_until_in_force(change, milliseconds(0)));
  EXPECT_EQ(levels.in_force().table.levels.at(1), scaled_point(0.5f));
  EXPECT_EQ(levels.level(), 1);
  EXPECT_EQ(levels.num_changes(), 1);
  EXPECT_FALSE(levels.take().table.has_value()) << "the table would travel with every step";
}

TEST(OperatingLevels, PlacesAnAppendedLevelAmongThoseOfTheStart) {
  LevelTable table = unskipped_levels(2);
  table.levels.push_back(scaled_point(0.2f));
  table.levels.push_back(scaled_point(0.5f));
  OperatingLevels levels(table);
  EXPECT_THAT(levels.places(), testing::ElementsAre(0, 1, 2));
  levels.append(scaled_point(0.1f));
  levels.append(scaled_point(0.9f));
  EXPECT_EQ(levels.places().size(), 3u) << "not yet in force";
  EXPECT_THAT(apply(levels).places, testing::ElementsAre(0, 1, 2, 1, 3));
  EXPECT_THAT(levels.places(), testing::ElementsAre(0, 1, 2, 1, 3));
}

TEST(OperatingLevels, SharesItsNumbersWithFormsOfLevels) {
  OperatingLevels levels(unskipped_levels(2));
  EXPECT_FALSE(levels.claim_slots(256));
  EXPECT_TRUE(levels.claim_slots(254));
  levels.append(scaled_point(0.1f));
  EXPECT_THROW(levels.append(scaled_point(0.2f)), InvalidRequest);
  EXPECT_FALSE(levels.claim_slots(1));
  EXPECT_NO_THROW(levels.append(scaled_point(0.1f))) << "it is there already";
  levels.set_switched_off({{.moe_layer = 1, .phase = TokenPhase::kGenerated}});
  EXPECT_EQ(levels.in_force().switched_off.size(), 1u);
}

TEST(OperatingLevels, StartsAtTheLevelItIsGiven) {
  LevelTable table = unskipped_levels(2);
  table.levels.push_back(scaled_point(0.5f));
  OperatingLevels levels(table, 1);
  EXPECT_EQ(levels.level(), 1);
  EXPECT_EQ(apply(levels).level, 1);
  EXPECT_EQ(levels.num_changes(), 0);
}

TEST(OperatingLevels, AChangeThatComesDuringAStepWaitsForTheNext) {
  OperatingLevels levels(unskipped_levels(2));
  const OperatingLevels::Change taken = levels.take();
  const uint64_t change = levels.append(scaled_point(0.5f));
  levels.confirm(taken);
  EXPECT_FALSE(levels.wait_until_in_force(change, milliseconds(0)));
  apply(levels);
  EXPECT_TRUE(levels.wait_until_in_force(change, milliseconds(0)));
}

TEST(OperatingLevels, KnownNumbersAreALevelAlready) {
  OperatingLevels levels(unskipped_levels(2));
  levels.append(scaled_point(0.5f));
  levels.append(scaled_point(0.25f));
  levels.append(scaled_point(0.5f));
  EXPECT_EQ(apply(levels).level, 1);
  EXPECT_EQ(levels.num_levels(), 3);
}

TEST(OperatingLevels, RefusesLevelsThatDoNotExistAndNamesThoseThatDo) {
  OperatingLevels levels(unskipped_levels(2));
  levels.append(scaled_point(0.5f));
  for (const int64_t level : {int64_t{-1}, int64_t{2}, int64_t{256}, INT64_MAX}) {
    try {
      levels.set_level(level);
      ADD_FAILURE() << level;
    } catch (const InvalidRequest& e) {
      EXPECT_EQ(e.param(), "level");
      EXPECT_THAT(e.what(), HasSubstr("level: " + std::to_string(level) + " does not exist; the levels are 0 to 1"));
    }
  }
}

TEST(OperatingLevels, AFullTableSaysWhatToDo) {
  OperatingLevels levels(unskipped_levels(2));
  for (int i = 1; i < 256; ++i) levels.append(scaled_point(static_cast<float>(i)));
  try {
    levels.append(scaled_point(0.5f));
    FAIL() << "level 256 was accepted";
  } catch (const InvalidRequest& e) {
    EXPECT_THAT(e.what(), HasSubstr("restart the server"));
  }
  levels.append(scaled_point(7.0f));
  EXPECT_EQ(apply(levels).level, 7);
}

TEST(OperatingLevels, ASmallerTableTakesTheGlobalLevelToZero) {
  OperatingLevels levels(unskipped_levels(2));
  levels.append(scaled_point(0.5f));
  apply(levels);
  levels.set_table(unskipped_levels(2));
  EXPECT_EQ(apply(levels).level, 0);
  EXPECT_EQ(levels.num_levels(), 1);
  EXPECT_EQ(levels.num_changes(), 2);
}

TEST(OperatingLevels, AWaitEndsWithTheStepOrWithTheEngine) {
  OperatingLevels levels(unskipped_levels(2));
  const uint64_t first = levels.append(scaled_point(0.5f));
  std::thread engine([&] { apply(levels); });
  EXPECT_TRUE(levels.wait_until_in_force(first, std::chrono::minutes(1)));
  engine.join();
  const uint64_t second = levels.set_level(0);
  std::thread ending([&] { levels.close(); });
  EXPECT_FALSE(levels.wait_until_in_force(second, std::chrono::minutes(1)));
  ending.join();
}

}  // namespace
}  // namespace skipper

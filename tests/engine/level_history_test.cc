#include "engine/level_history.h"

#include <gtest/gtest.h>

namespace skipper {
namespace {

TEST(LevelHistory, GivesTokensThatNeverRanTheCurrentLevel) {
  const LevelHistory empty;
  EXPECT_EQ(empty.end(), 0);
  EXPECT_EQ(empty.latest(), 0);
  EXPECT_EQ(empty.level_at(0, 3), 3);
  EXPECT_EQ(empty.uniform_length(0, 17, 3), 17);
  EXPECT_EQ(empty.uniform_length(0, 0, 3), 0);
}

TEST(LevelHistory, KeepsTheFirstLevelOfATokenWhateverIsRecordedLater) {
  LevelHistory history;
  history.record(5, 1);
  history.record(5, 2);
  history.record(3, 2);
  history.record(7, 2);
  EXPECT_EQ(history.runs(), (std::vector<LevelRun>{{5, 1}, {7, 2}}));
  EXPECT_EQ(history.level_at(4, 0), 1);
  EXPECT_EQ(history.level_at(5, 0), 2);
  EXPECT_EQ(history.level_at(7, 0), 0);
  EXPECT_EQ(history.latest(), 2);
}

TEST(LevelHistory, CutsChunksWhereTheLevelChanges) {
  const LevelHistory history({{5, 1}, {7, 2}});
  EXPECT_EQ(history.uniform_length(0, 20, 2), 5);
  EXPECT_EQ(history.uniform_length(0, 4, 2), 4);
  EXPECT_EQ(history.uniform_length(4, 20, 2), 1);
  EXPECT_EQ(history.uniform_length(5, 20, 1), 2) << "the tokens from 7 on run at another level";
  EXPECT_EQ(history.uniform_length(5, 20, 2), 20) << "the tokens from 7 on run at the same level";
  EXPECT_EQ(history.uniform_length(7, 13, 0), 13);
}

TEST(LevelHistory, JoinsRunsOfOneLevel) {
  EXPECT_EQ(LevelHistory({{2, 1}, {3, 1}, {11, 0}}), LevelHistory({{3, 1}, {11, 0}}));
}

}  // namespace
}  // namespace skipper

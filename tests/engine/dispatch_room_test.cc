#include "engine/dispatch_room.h"

#include <gtest/gtest.h>

namespace skipper {
namespace {

ForwardShape decode_of(int32_t rows) { return {.most_rows = rows, .most_logit_rows = rows, .is_decode = true}; }

// Enough steps with the same demand.
void observe_many(DispatchRoom& room, int32_t rows, int64_t most_rows) {
  for (int step = 0; step < 64; ++step) room.observe(decode_of(rows), most_rows);
}

TEST(DispatchRoom, IsForAllRowsUntilStepsHaveTold) {
  DispatchRoom room;
  for (int step = 0; step < 15; ++step) {
    room.observe(decode_of(100), 10);
    EXPECT_EQ(room.rows_for(decode_of(100)), 0) << step;
  }
  room.observe(decode_of(100), 10);
  EXPECT_EQ(room.rows_for(decode_of(100)), 12) << "a tenth and a margin";
}

TEST(DispatchRoom, FollowsTheLargestShareToOtherNumbersOfRows) {
  DispatchRoom room;
  observe_many(room, 64, 16);
  room.observe(decode_of(64), 32);
  EXPECT_EQ(room.rows_for(decode_of(64)), 36);
  EXPECT_EQ(room.rows_for(decode_of(128)), 72);
  EXPECT_EQ(room.rows_for(decode_of(1)), 0);
  EXPECT_EQ(room.rows_for(decode_of(0)), 0);
  observe_many(room, 64, 16);
  EXPECT_EQ(room.rows_for(decode_of(64)), 18) << "the large one is long ago";
}

TEST(DispatchRoom, IsForAllRowsWhereNearlyAllTravel) {
  DispatchRoom room;
  observe_many(room, 100, 90);
  EXPECT_EQ(room.rows_for(decode_of(100)), 0);
}

TEST(DispatchRoom, GrowsWithAStepThatHadTooLittle) {
  DispatchRoom room;
  observe_many(room, 100, 10);
  const int32_t before = room.rows_for(decode_of(100));
  room.observe(decode_of(100), 60);
  EXPECT_LT(before, 60);
  EXPECT_GE(room.rows_for(decode_of(100)), 60);
}

TEST(DispatchRoom, TakesNothingFromPromptsAndFromStepsWithoutSlots) {
  DispatchRoom room;
  for (int step = 0; step < 64; ++step) {
    room.observe({.most_rows = 100, .most_logit_rows = 1, .is_decode = false}, 5);
    room.observe(decode_of(100), 0);
  }
  EXPECT_EQ(room.rows_for(decode_of(100)), 0);
  observe_many(room, 100, 10);
  EXPECT_EQ(room.rows_for({.most_rows = 100, .most_logit_rows = 1, .is_decode = false}), 0);
}

TEST(DispatchRoom, ForgetsTheDemandOfOtherLevels) {
  DispatchRoom room;
  observe_many(room, 100, 10);
  room.forget();
  EXPECT_EQ(room.rows_for(decode_of(100)), 0);
}

}  // namespace
}  // namespace skipper

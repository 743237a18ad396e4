#include "guard/sliding_sums.h"

#include <gtest/gtest.h>

namespace skipper {
namespace {

TEST(SlidingSums, CoverHalfAWindowToAWholeOneAndForgetWhatIsOlder) {
  SlidingSums sums;
  for (int i = 0; i < 100; ++i) sums.add({.numerator = 1000.0, .denominator = 1.0, .count = 1}, 16);
  for (int i = 0; i < 16; ++i) {
    sums.add({.numerator = 1.0, .denominator = 1.0, .count = 1}, 16);
    EXPECT_GE(sums.total().count, 8);
    EXPECT_LE(sums.total().count, 16);
  }
  EXPECT_EQ(sums.total().numerator, static_cast<double>(sums.total().count));
}

TEST(SlidingSums, AnOddWindowAndOneLargeObservationDoNotGetStuck) {
  SlidingSums sums;
  EXPECT_EQ(sums.total().count, 0);
  sums.add({.numerator = 5.0, .denominator = 100.0, .count = 100}, 3);
  EXPECT_EQ(sums.total().count, 100);
  for (int i = 0; i < 4; ++i) sums.add({.numerator = 0.0, .denominator = 1.0, .count = 1}, 3);
  EXPECT_EQ(sums.total().numerator, 0.0);
  sums.clear();
  EXPECT_EQ(sums.total().count, 0);
}

}  // namespace
}  // namespace skipper

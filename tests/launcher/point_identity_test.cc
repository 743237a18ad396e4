#include "launcher/point_identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace skipper {
namespace {

using testing::AllOf;
using testing::HasSubstr;

OperatingPoint skipping(float tau) {
  OperatingPoint point = unskipped_levels(2).levels[0];
  point.tau = {tau, tau};
  return point;
}

TEST(PointIdentity, NamesNumbersAndNotFiles) {
  EXPECT_EQ(identity_of(unskipped_levels(2).levels[0]), "");
  EXPECT_EQ(identity_of(skipping(0.1f)).size(), 16u);
  EXPECT_EQ(identity_of(skipping(0.1f)), identity_of(skipping(0.1f)));
  EXPECT_NE(identity_of(skipping(0.1f)), identity_of(skipping(0.2f)));
}

TEST(PointIdentity, WarnsWhereProfileAndRequestsDiffer) {
  const std::string profiled = identity_of(skipping(0.1f));
  EXPECT_FALSE(point_mismatch(std::nullopt, skipping(0.1f)));
  EXPECT_FALSE(point_mismatch(profiled, skipping(0.1f)));
  EXPECT_FALSE(point_mismatch("", unskipped_levels(2).levels[0]));
  EXPECT_THAT(point_mismatch("", skipping(0.1f)).value_or(""),
              AllOf(HasSubstr("measured without skipping"), HasSubstr(profiled), HasSubstr("run 'skipper profile'")));
  EXPECT_THAT(point_mismatch(profiled, skipping(0.2f)).value_or(""), HasSubstr("at level " + identity_of(skipping(0.2f))));
}

}  // namespace
}  // namespace skipper

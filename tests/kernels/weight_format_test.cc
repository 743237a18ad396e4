#include "kernels/weight_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace skipper {
namespace {

std::string refusal_of(std::string_view text) {
  try {
    parse_weight_format(text, "--experts");
  } catch (const InvalidRequest& error) {
    EXPECT_EQ(error.param(), "--experts");
    return error.what();
  }
  ADD_FAILURE() << text << " was accepted";
  return "";
}

TEST(WeightFormat, EveryNameIsReadBackAsItsFormat) {
  const std::vector<std::string> names = weight_format_names();
  EXPECT_EQ(names.size(), 2u + 5u * 3u);
  for (const std::string& name : names) EXPECT_EQ(name_of(parse_weight_format(name, "key")), name);
}

TEST(WeightFormat, NamesAreThoseOfTheDesign) {
  EXPECT_THAT(weight_format_names(),
              testing::IsSupersetOf({"f32", "bf16", "int8-g64", "int4-g32", "int4a-g32", "int3a-g64", "int2a-g128"}));
}

TEST(WeightFormat, CountsScalesAndZeroPoints) {
  EXPECT_EQ(parse_weight_format("f32", "").bits_per_weight(), 32.0);
  EXPECT_EQ(parse_weight_format("bf16", "").bits_per_weight(), 16.0);
  EXPECT_EQ(parse_weight_format("int8-g64", "").bits_per_weight(), 8.0 + 16.0 / 64);
  EXPECT_EQ(parse_weight_format("int4-g32", "").bits_per_weight(), 4.0 + 16.0 / 32);
  EXPECT_EQ(parse_weight_format("int4a-g32", "").bits_per_weight(), 4.0 + 24.0 / 32);
  EXPECT_EQ(parse_weight_format("int3a-g64", "").bits_per_weight(), 3.0 + 24.0 / 64);
  EXPECT_EQ(parse_weight_format("int2a-g128", "").bits_per_weight(), 2.0 + 24.0 / 128);
}

TEST(WeightFormat, RefusalsNameTheKeyTheTextAndTheNearestName) {
  EXPECT_EQ(refusal_of("int4-g33"), "--experts: unknown weight format 'int4-g33'; did you mean int4-g32?");
  EXPECT_EQ(refusal_of("fp8 block"), "--experts: unknown weight format 'fp8 block'; use f32, bf16, int8-gN, int4-gN, int4a-gN, "
                                     "int3a-gN or int2a-gN, N = 32, 64 or 128");
  for (const char* text : {"", "int8", "INT8-G64", "int8-g16", "int4-g32 ", "int5-g32"}) EXPECT_NE(refusal_of(text), "");
}

}  // namespace
}  // namespace skipper

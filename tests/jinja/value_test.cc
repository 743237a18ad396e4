#include "jinja/value.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "jinja/failure.h"
#include "jinja/value_json.h"
#include "jinja/value_text.h"

namespace skipper::jinja {
namespace {

TEST(Map, KeepsTheOrderOfInsertionWhenAKeyIsSetAgain) {
  Map map;
  map.set("b", Value(int64_t{1}));
  map.set("a", Value(int64_t{2}));
  map.set("b", Value(int64_t{3}));
  ASSERT_EQ(map.size(), 2u);
  EXPECT_EQ(map.entries()[0].first, "b");
  EXPECT_EQ(map.find("b")->as_int(), 3);
  EXPECT_EQ(map.find("c"), nullptr);
}

TEST(Value, KnowsHowDeepItNests) {
  EXPECT_EQ(Value(int64_t{1}).depth(), 0);
  EXPECT_EQ(Value::list({}).depth(), 1);
  EXPECT_EQ(Value::list({Value::list({})}).depth(), 2);
}

TEST(Value, RefusesToNestDeeperThanTheLimit) {
  Value value = Value::list({});
  for (int depth = 1; depth < Value::kMaxDepth; ++depth) value = Value::list({value});
  EXPECT_THROW(Value::list({value}), Failure);
  Map map;
  map.set("x", value);
  EXPECT_THROW(Value::map(map), Failure);
}

TEST(ValueFromJson, KeepsTypesAndOrder) {
  const auto json = nlohmann::ordered_json::parse(R"({"z": [1, 2.0, "x", null, true], "a": {}})");
  Budget budget{Limits{}};
  EXPECT_EQ(to_text(budget, value_from_json(json)), "{'z': [1, 2.0, 'x', None, True], 'a': {}}");
}

TEST(ValueFromJson, RefusesWhatItCannotHold) {
  EXPECT_THROW(value_from_json(nlohmann::ordered_json::parse("18446744073709551615")), Failure);
  const std::string deep = std::string(10'000, '[') + std::string(10'000, ']');
  EXPECT_THROW(value_from_json(nlohmann::ordered_json::parse(deep)), Failure);
}

TEST(FloatText, IsTheShortestThatReadsBackTheSame) {
  EXPECT_EQ(float_text(0.1), "0.1");
  EXPECT_EQ(float_text(-0.0), "-0.0");
  EXPECT_EQ(float_text(1e22), "1e+22");
  EXPECT_EQ(float_text(123456789012345680.0), "1.2345678901234568e+17");
  EXPECT_EQ(float_text(9999999999999998.0), "9999999999999998.0");
  EXPECT_EQ(float_text(5e-324), "5e-324");
  EXPECT_EQ(float_text(std::numeric_limits<double>::infinity()), "inf");
}

}  // namespace
}  // namespace skipper::jinja

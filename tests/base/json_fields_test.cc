#include "base/json_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

using nlohmann::json;
using testing::HasSubstr;

template <typename Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const InvalidFile& e) {
    return e.what();
  }
  return "nothing was thrown";
}

TEST(JsonFields, ReadsTypedValuesAndDefaults) {
  const json object = {{"a", 3}, {"b", 0.5}, {"c", "x"}, {"d", nullptr}, {"e", {1, 2}}};
  JsonFields fields(object, "f.json");
  EXPECT_EQ(fields.required_int("a", 0, 10), 3);
  EXPECT_DOUBLE_EQ(fields.required_number("b", 0, 1), 0.5);
  EXPECT_EQ(fields.required_string("c"), "x");
  EXPECT_EQ(fields.optional_int("d", 7, 0, 10), 7);
  EXPECT_EQ(fields.optional_ints("e", 0, 5), (std::vector<int64_t>{1, 2}));
  EXPECT_NO_THROW(fields.reject_unknown_keys());
}

TEST(JsonFields, ErrorsNameFileKeyPathAndValue) {
  const json object = {{"outer", {{"depth", "many"}}}};
  const std::string message =
      message_of([&] { JsonFields(object, "config.json").required_object("outer").required_int("depth", 1, 9); });
  EXPECT_EQ(message, "config.json: outer: depth: expected an integer, found \"many\"");
}

TEST(JsonFields, WrongTypeIsNeverSilentlyTheDefault) {
  const json object = {{"n", "7"}, {"big", 18446744073709551615ull}, {"flag", 1}};
  JsonFields fields(object, "f");
  EXPECT_THROW(fields.optional_int("n", 1, 0, 9), InvalidFile);
  EXPECT_THROW(fields.optional_int("big", 1, 0, INT64_MAX), InvalidFile);
  EXPECT_THROW(fields.optional_bool("flag", false), InvalidFile);
}

TEST(JsonFields, UnknownKeyIsRefusedWithTheNearestName) {
  const json object = {{"max_token", 3}};
  JsonFields fields(object, "server.json");
  fields.optional_int("max_tokens", 1, 0, 9);
  EXPECT_THAT(message_of([&] { fields.reject_unknown_keys(); }), HasSubstr("did you mean 'max_tokens'?"));
}

TEST(ReadJsonFile, NamesMissingAndBrokenFiles) {
  EXPECT_THAT(message_of([] { read_json_file("/nonexistent/x.json"); }), HasSubstr("/nonexistent/x.json"));
  const std::string path = testing::TempDir() + "/broken.json";
  std::ofstream(path) << "{\"a\": ";
  EXPECT_THAT(message_of([&] { read_json_file(path); }), HasSubstr("not valid JSON"));
  EXPECT_THAT(message_of([&] { read_json_file(path, 3); }), HasSubstr("more than the limit of 3"));
}

TEST(NearestName, FindsTyposAndNothingElse) {
  EXPECT_EQ(nearest_name("prot", {"port", "host"}), "port");
  EXPECT_EQ(nearest_name("zzzzzz", {"port", "host"}), std::nullopt);
}

}  // namespace
}  // namespace skipper

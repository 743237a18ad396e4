#include "cluster/operating_point.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

const ModelIdentity kModel{"feed1234", 4};

json valid_point() {
  return {{"version", 1},
          {"model_fingerprint", "feed1234"},
          {"alpha", {{"text", {0.1, 0.2, 0.3, 0.4}}, {"vision", {0.25, 0.25, 0.25, 0.25}}}},
          {"tau", {{"text", 0.05}, {"vision", 2.0}}},
          {"renormalize", false},
          {"protect_top1", true}};
}

json point_with(const json& patch) {
  json point = valid_point();
  point.merge_patch(patch);
  return point;
}

json valid_frontier() {
  json unskipped = point_with({{"tau", {{"text", 0}, {"vision", 0}}}});
  json skipping = valid_point();
  skipping.erase("version");
  skipping["measured"] = {{"kl", 0.01}, {"bytes", {1, 2, 3}}};
  return {{"version", 1}, {"levels", {unskipped, skipping}}};
}

std::filesystem::path write(const std::string& text) {
  const auto path = std::filesystem::path(testing::TempDir()) / "operating_point_test.json";
  std::ofstream(path) << text;
  return path;
}

std::string error_of(const std::string& text, const ModelIdentity& model = kModel) {
  try {
    load_levels(write(text), model);
  } catch (const InvalidFile& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(LevelTable, UnskippedLevelsHoldOneLevelThatSkipsNothing) {
  const LevelTable table = unskipped_levels(4);
  ASSERT_EQ(table.num_levels(), 1);
  EXPECT_EQ(table.levels[0].tau, (std::array<float, 2>{0.0f, 0.0f}));
  EXPECT_EQ(table.levels[0].alpha[0], std::vector<float>(4, 0.25f));
  EXPECT_EQ(table.levels[0].alpha[1], std::vector<float>(4, 0.25f));
  EXPECT_TRUE(unskipped_levels(0).levels[0].alpha[0].empty());
}

TEST(LevelTable, SinglePointBecomesLevelOneAboveAnUnskippedLevelZero) {
  const LevelTable table = load_levels(write(valid_point().dump()), kModel);
  ASSERT_EQ(table.num_levels(), 2);
  EXPECT_EQ(table.version, 1u);
  EXPECT_EQ(table.levels[0].tau, (std::array<float, 2>{0.0f, 0.0f}));
  EXPECT_FALSE(table.levels[0].protect_top1);
  EXPECT_EQ(table.levels[1].tau, (std::array<float, 2>{0.05f, 2.0f}));
  EXPECT_EQ(table.levels[1].alpha[0], (std::vector<float>{0.1f, 0.2f, 0.3f, 0.4f}));
  EXPECT_EQ(table.levels[1].alpha[1], std::vector<float>(4, 0.25f));
  EXPECT_TRUE(table.levels[1].protect_top1);
}

TEST(LevelTable, FrontierGivesItsLevelsAndIgnoresWhatWasMeasured) {
  const LevelTable table = load_levels(write(valid_frontier().dump()), kModel);
  ASSERT_EQ(table.num_levels(), 2);
  EXPECT_EQ(table.levels[0].tau, (std::array<float, 2>{0.0f, 0.0f}));
  EXPECT_EQ(table.levels[1].tau, (std::array<float, 2>{0.05f, 2.0f}));
}

TEST(LevelTable, FingerprintAndFlagsMayBeAbsent) {
  json point = valid_point();
  point.erase("model_fingerprint");
  point.erase("renormalize");
  point.erase("protect_top1");
  EXPECT_EQ(load_levels(write(point.dump()), kModel).num_levels(), 2);
}

TEST(LevelTable, AlphaSumMayBeOffByRounding) {
  EXPECT_NO_THROW(load_levels(write(point_with({{"alpha", {{"text", {0.25, 0.25, 0.25, 0.2509}}}}}).dump()), kModel));
  EXPECT_THAT(error_of(point_with({{"alpha", {{"text", {0.25, 0.25, 0.25, 0.252}}}}}).dump()),
              AllOf(HasSubstr("alpha: text: sums to 1.002"), HasSubstr("1/4")));
}

TEST(LevelTable, ForeignModelIsRefusedWithBothFingerprints) {
  EXPECT_THAT(error_of(valid_point().dump(), {"beef5678", 4}), AllOf(HasSubstr("feed1234"), HasSubstr("beef5678")));
  json frontier = valid_frontier();
  frontier["levels"][1]["model_fingerprint"] = "0000";
  EXPECT_THAT(error_of(frontier.dump()), AllOf(HasSubstr("levels[1]"), HasSubstr("0000"), HasSubstr("feed1234")));
}

TEST(LevelTable, FrontierWhoseLevelZeroSkipsIsRefused) {
  json frontier = valid_frontier();
  frontier["levels"][0]["tau"]["vision"] = 0.001;
  EXPECT_THAT(error_of(frontier.dump()), AllOf(HasSubstr("levels[0]"), HasSubstr("must skip nothing")));
}

struct BadFile {
  const char* name;
  std::string text;
  const char* expected;
};

void PrintTo(const BadFile& file, std::ostream* out) { *out << file.name; }

class BadOperatingPoint : public testing::TestWithParam<BadFile> {};

TEST_P(BadOperatingPoint, IsRefusedInOneLineThatNamesFileAndKey) {
  const std::string message = error_of(GetParam().text);
  EXPECT_THAT(message, AllOf(HasSubstr("operating_point_test.json"), HasSubstr(GetParam().expected)));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

INSTANTIATE_TEST_SUITE_P(
    Files, BadOperatingPoint,
    testing::Values(
        BadFile{"NotJson", "{", "not valid JSON"}, BadFile{"List", "[]", "expected a JSON object"},
        BadFile{"NoVersion", point_with({{"version", nullptr}}).dump(), "version: is missing"},
        BadFile{"NewerVersion", point_with({{"version", 2}}).dump(), "version: 2 is out of range"},
        BadFile{"UnknownKey", point_with({{"tauu", 1}}).dump(), "tauu: unknown key; did you mean 'tau'?"},
        BadFile{"UnknownClass", point_with({{"tau", {{"video", 1}}}}).dump(), "tau: video: unknown key"},
        BadFile{"NoTau", point_with({{"tau", nullptr}}).dump(), "tau: is missing"},
        BadFile{"NoVisionTau", point_with({{"tau", {{"vision", nullptr}}}}).dump(), "tau: vision: is missing"},
        BadFile{"NegativeTau", point_with({{"tau", {{"text", -0.1}}}}).dump(), "tau: text: -0.1 is out of range"},
        BadFile{"NanTau", replaced(valid_point().dump(), "0.05", "NaN"), "not valid JSON"},
        BadFile{"InfiniteTau", replaced(valid_point().dump(), "0.05", "1e999"), "not valid JSON"},
        BadFile{"HugeTau", point_with({{"tau", {{"text", 1e30}}}}).dump(), "tau: text: 1e+30 is out of range"},
        BadFile{"TextTau", point_with({{"tau", {{"text", "0.1"}}}}).dump(), "tau: text: expected a number"},
        BadFile{"NoAlpha", point_with({{"alpha", nullptr}}).dump(), "alpha: is missing"},
        BadFile{"NoVisionAlpha", point_with({{"alpha", {{"vision", nullptr}}}}).dump(), "alpha: vision: is missing"},
        BadFile{"NegativeAlpha", point_with({{"alpha", {{"text", {-0.5, 0.5, 0.5, 0.5}}}}}).dump(), "alpha: text: -0.5"},
        BadFile{"OtherLayers", point_with({{"alpha", {{"text", {0.5, 0.5}}}}}).dump(),
                "alpha: text: has 2 numbers but the model has 4 MoE layers"},
        BadFile{"DestinationRule", point_with({{"tau_dst", {{"text", {{"node", 0.1}}}}}}).dump(),
                "tau_dst: the destination rule is not supported by this build yet"},
        BadFile{"Renormalize", point_with({{"renormalize", true}}).dump(),
                "renormalize: true is not supported by this build yet"},
        BadFile{"TopOneAsNumber", point_with({{"protect_top1", 1}}).dump(), "protect_top1: expected true or false"},
        BadFile{"NoLevels", R"({"version": 1, "levels": []})", "levels: expected a list of 1 to 256"},
        BadFile{"LevelsAsObject", R"({"version": 1, "levels": {"a": 1}})", "levels: expected a list of 1 to 256"},
        BadFile{"LevelAsNumber", R"({"version": 1, "levels": [3]})", "levels[0]: expected a JSON object"}),
    [](const auto& test) { return test.param.name; });

TEST(LevelTable, MissingFileIsRefusedByItsPath) {
  EXPECT_THROW(load_levels("no/such/operating_point.json", kModel), InvalidFile);
}

}  // namespace
}  // namespace skipper

#include "evaluation/precision_frontier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "evaluation/precision_log.h"

namespace skipper {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

PrecisionPoint point(const std::string& name, size_t bytes, double kl, double speed) {
  PrecisionPoint one;
  one.name = name;
  one.expert_bytes = bytes;
  one.measured = {.kl = kl, .perplexity = 12.5, .right = 3, .questions = 4, .tokens_per_second = speed / 2,
                  .joules_per_token = std::nullopt};
  one.predicted = {.loss = kl / 3, .tokens_per_second = speed};
  one.formats = {{WeightFormat{}, {WeightKind::kInt4, 32}}};
  return one;
}

TEST(PrecisionFrontier, MarksPointsThatAnotherBeats) {
  const std::vector<PrecisionPoint> points = {point("best", 100, 0.1, 50), point("larger", 200, 0.05, 40),
                                              point("larger and worse", 200, 0.2, 40), point("same", 100, 0.1, 50),
                                              point("slower", 100, 0.1, 49), point("worse but faster", 100, 0.3, 51)};
  EXPECT_THAT(dominated(points), ElementsAre(false, false, true, false, true, false));
  EXPECT_TRUE(dominated({}).empty());
}

TEST(PrecisionFrontier, WritesPointsWithNullForWhatWasNotMeasured) {
  std::vector<PrecisionPoint> points = {point("210 MB", 100, 0.1, 50), point("int4-g32", 90, 0.09, 60)};
  points[1].source = PrecisionSource::kUniform;
  points[1].measured.joules_per_token = 0.5;
  points[1].measured.perplexity = 0.0;
  const auto file = nlohmann::json::parse(to_json(points, {.model = "demo", .model_fingerprint = "f", .data = "d",
                                                           .data_hash = "h", .profile = "measured", .rates = ""}));
  EXPECT_EQ(file["points"][0]["dominated"], true);
  EXPECT_EQ(file["points"][0]["measured"]["perplexity"], 12.5);
  EXPECT_TRUE(file["points"][0]["measured"]["joules_per_token"].is_null());
  EXPECT_EQ(file["points"][1]["source"], "uniform");
  EXPECT_EQ(file["points"][1]["measured"]["joules_per_token"], 0.5);
  EXPECT_TRUE(file["points"][1]["measured"]["perplexity"].is_null());
  EXPECT_TRUE(file["rates"].is_null());
  const std::string table = precision_table(points);
  EXPECT_THAT(table, HasSubstr("dominated"));
  EXPECT_THAT(table, HasSubstr("n/a"));
}

TEST(PrecisionFrontier, DrawsAPageOfPlansAndSingleFormats) {
  std::vector<PrecisionPoint> points = {point("2 < 3", 100, 0.1, 50), point("loses nothing", 300, 0.0, 20),
                                        point("int4-g32", 120, 0.2, 45)};
  points[2].source = PrecisionSource::kUniform;
  PrecisionOrigin origin{
      .model = "a&b", .model_fingerprint = "f", .data = "d", .data_hash = "h", .profile = "measured", .rates = ""};
  const std::string page = to_page(points, origin);
  EXPECT_THAT(page, HasSubstr("a&amp;b"));
  EXPECT_THAT(page, HasSubstr("2 &lt; 3"));
  EXPECT_THAT(page, HasSubstr("plans, predicted"));
  EXPECT_THAT(page, HasSubstr("fill=\"none\"")) << "the single format is dominated";
  EXPECT_THAT(page, testing::Not(HasSubstr("nan")));
  origin.profile = "analytic";
  EXPECT_THAT(to_page(points, origin), testing::Not(HasSubstr("plans, predicted")));
  EXPECT_THAT(to_page({}, origin), HasSubstr("</html>"));
}

TEST(PrecisionLog, GoesOnWithWholeLinesOfTheSameSettings) {
  const std::filesystem::path path = std::filesystem::temp_directory_path() / ("precision_log_test_" + std::to_string(getpid()));
  const PrecisionPoint one = point("a", 1, 0.25, 2);
  ExpertFormats other = one.formats;
  other[0][0] = {WeightKind::kInt8, 64};
  {
    PrecisionLog log(path, "settings");
    log.add(one.formats, one.measured);
    log.add(other, {.kl = 1.0, .joules_per_token = 2.0});
  }
  std::ofstream(path, std::ios::app) << "{\"formats\": \"cut sh";
  {
    const PrecisionLog log(path, "settings");
    EXPECT_EQ(log.num_taken_over(), 2u);
    EXPECT_EQ(log.find(one.formats)->kl, 0.25);
    EXPECT_EQ(log.find(one.formats)->right, 3);
    EXPECT_FALSE(log.find(one.formats)->joules_per_token);
    EXPECT_EQ(log.find(other)->joules_per_token, 2.0);
  }
  PrecisionLog log(path, "other settings");
  EXPECT_FALSE(log.find(one.formats));
  log.remove();
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace skipper

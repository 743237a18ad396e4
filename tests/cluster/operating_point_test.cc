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

json similar_point_with(const json& patch) {
  json point = point_with({{"pair_rule", "similar"}, {"tau", nullptr}, {"beta", json::object()}});
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
        BadFile{"LocalHop", point_with({{"tau_dst", {{"text", {{"local", 0.1}}}}}}).dump(), "tau_dst: text: local: unknown key"},
        BadFile{"ProtectedTauDst", point_with({{"tau_dst", {{"protected", json::object()}}}}).dump(),
                "tau_dst: protected: unknown key"},
        BadFile{"NegativeTauShadow", point_with({{"tau_shadow", {{"text", {{"node", -1}}}}}}).dump(),
                "tau_shadow: text: node: -1"},
        BadFile{"NegativeTauDst", point_with({{"tau_dst", {{"vision", {{"network", -1}}}}}}).dump(),
                "tau_dst: vision: network: -1"},
        BadFile{"UnknownRule", point_with({{"pair_rule", "naee"}}).dump(), "pair_rule: 'naee' is not known; expected one of"},
        BadFile{"UnknownScore", point_with({{"destination_score", "max"}}).dump(), "destination_score: 'max' is not known"},
        BadFile{"TauOfOtherRule", point_with({{"pair_rule", "top_k"}}).dump(), "tau: has no meaning for pair_rule 'top_k'"},
        BadFile{"KeptKOfOtherRule", point_with({{"kept_k", {{"text", 1}, {"vision", 1}}}}).dump(),
                "kept_k: has no meaning for pair_rule 'score'"},
        BadFile{"NoKeptK", point_with({{"pair_rule", "top_k"}, {"tau", nullptr}}).dump(), "kept_k: is missing"},
        BadFile{"NegativeKeptK",
                point_with({{"pair_rule", "top_k"}, {"tau", nullptr}, {"kept_k", {{"text", -1}, {"vision", 1}}}}).dump(),
                "kept_k: text: -1"},
        BadFile{"BetaOfOtherLayers",
                point_with({{"pair_rule", "relative"}, {"tau", nullptr}, {"beta", {{"text", {0.1, 0.2}}}}}).dump(),
                "beta: text: has 2 numbers but the model has 4 MoE layers"},
        BadFile{"NegativeTauGenerated", point_with({{"tau_generated", -0.1}}).dump(), "tau_generated: -0.1"},
        BadFile{"ScaleOfOtherExperts", point_with({{"expert_scale", {1, 1, 1, 1, 1}}}).dump(),
                "expert_scale: has 5 numbers but the model has 4 MoE layers"},
        BadFile{"NoSimilarity", similar_point_with(json::object()).dump(),
                "expert_similarity: is missing; expected the numbers of 'skipper experts'"},
        BadFile{"SimilarityThatIsNoSquare",
                similar_point_with({{"expert_similarity", {1, 1, 1}}}).dump(),
                "expert_similarity: has 3 numbers but the model has 4 MoE layers"},
        BadFile{"NegativeSimilarity",
                similar_point_with({{"expert_similarity", {1, 1, 1, -1}}}).dump(),
                "expert_similarity: -1 is not a number from 0"},
        BadFile{"SimilarityOfOtherRule", point_with({{"expert_similarity", {1, 1, 1, 1}}}).dump(),
                "expert_similarity: has no meaning for pair_rule 'score'"},
        BadFile{"BetaOfSimilarOfOtherLayers",
                similar_point_with({{"beta", {{"vision", {0.1}}}}, {"expert_similarity", {1, 1, 1, 1}}}).dump(),
                "beta: vision: has 1 numbers but the model has 4 MoE layers"},
        BadFile{"ProtectedShareOverOne", point_with({{"protect_attention", 1.5}}).dump(), "protect_attention: 1.5"},
        BadFile{"NegativeProtectedShare", point_with({{"protect_attention", -0.5}}).dump(), "protect_attention: -0.5"},
        BadFile{"CapacityUnderTheMean", point_with({{"rank_capacity", 0.9}}).dump(), "rank_capacity: must be 0"},
        BadFile{"NegativeDecodeK", point_with({{"decode_base_k", -1}}).dump(), "decode_base_k: -1"},
        BadFile{"FractionalRankExperts", point_with({{"decode_rank_experts", 1.5}}).dump(), "decode_rank_experts: expected"},
        BadFile{"MarginOverOne", point_with({{"protect_margin", 1.5}}).dump(), "protect_margin: 1.5"},
        BadFile{"BypassInAFile", point_with({{"identity_bypass", {{"text", {1, 0, 0, 0}}}}}).dump(), "identity_bypass: unknown"},
        BadFile{"PlacementWithoutNodes", point_with({{"placement", {{"ranks", 2}}}}).dump(),
                "placement: ranks_per_node: is missing"},
        BadFile{"TopOneAsNumber", point_with({{"protect_top1", 1}}).dump(), "protect_top1: expected true or false"},
        BadFile{"NoLevels", R"({"version": 1, "levels": []})", "levels: expected a list of 1 to 256"},
        BadFile{"LevelsAsObject", R"({"version": 1, "levels": {"a": 1}})", "levels: expected a list of 1 to 256"},
        BadFile{"LevelAsNumber", R"({"version": 1, "levels": [3]})", "levels[0]: expected a JSON object"}),
    [](const auto& test) { return test.param.name; });

// A point with all that a file can hold; the floats have no short decimal form.
OperatingPoint full_point() {
  OperatingPoint point;
  point.alpha = {std::vector{0.1f, 0.2f, 0.3f, 0.4f}, std::vector(4, 0.25f)};
  point.tau = {1.0f / 3.0f, 1.17549435e-38f};
  point.tau_generated = 0.7f / 9.0f;
  point.expert_scale = {0.1f, 1.0f / 7.0f, 3.0f, 1.0f, 1.0f, 1.0f, 1.0f, 0.0f};
  point.tau_dst = {std::array{0.0f, 1e-5f / 3.0f, 0.3f}, std::array{0.0f, 0.1f, 0.2f}};
  point.tau_shadow = {std::array{0.0f, 1e-6f / 3.0f, 0.2f}, std::array{0.0f, 0.0f, 0.1f / 7.0f}};
  point.destination_score = DestinationScore::kSum;
  point.exempt_local = true;
  point.rank_capacity = 1.1f;
  point.decode_base_k = 2;
  point.decode_rank_experts = 3;
  point.protect_top1 = true;
  point.protect_margin = 0.03f;
  point.protect_attention = 0.02f / 3.0f;
  point.renormalize = true;
  return point;
}

OperatingPoint with_rule(PairRule rule) {
  OperatingPoint point;
  point.alpha = {std::vector(4, 0.25f), std::vector(4, 0.25f)};
  point.pair_rule = rule;
  if (rule == PairRule::kTopK) point.kept_k = {2.7f, 0.1f};
  if (rule == PairRule::kSimilar) point.expert_similarity = std::vector(16, 1.0f / 3.0f);
  if (rule >= PairRule::kTailMass) point.beta[1] = {0.1f, 0.2f, 0.0f, 1.0f / 3.0f};
  return point;
}

json file_of(const OperatingPoint& point) {
  json file = to_json(point);
  file["version"] = 1;
  return file;
}

TEST(LevelTable, PointsReadBackToTheSameBitsAsTheyWereWritten) {
  const std::vector<OperatingPoint> points = {full_point(), with_rule(PairRule::kScore), with_rule(PairRule::kTopK),
                                              with_rule(PairRule::kTailMass), with_rule(PairRule::kRelative),
                                              with_rule(PairRule::kSimilar)};
  for (const OperatingPoint& point : points) {
    EXPECT_EQ(load_levels(write(file_of(point).dump()), kModel).levels[1], point) << to_json(point).dump();
  }
}

TEST(LevelTable, MessagesBetweenRanksCarryEveryField) {
  LevelTable table{.version = 7, .levels = {with_rule(PairRule::kSimilar), full_point(), with_rule(PairRule::kTopK)}};
  table.levels[2].identity_bypass[1] = {0, 1, 0, 0};
  table.levels[2].exempt_layers[1] = {0, 0, 1, 0};
  std::vector<std::byte> bytes;
  encode(table, bytes);
  const LevelTable decoded = decode_level_table(bytes);
  EXPECT_EQ(decoded.version, 7u);
  EXPECT_EQ(decoded.levels, table.levels);
  bytes.pop_back();
  EXPECT_THROW(decode_level_table(bytes), CommError);
}

TEST(LevelTable, MessagesWithARuleOfNobodyAreRefused) {
  LevelTable table{.levels = {with_rule(PairRule::kScore)}};
  table.levels[0].pair_rule = static_cast<PairRule>(9);
  std::vector<std::byte> bytes;
  encode(table, bytes);
  EXPECT_THROW(decode_level_table(bytes), CommError);
}

TEST(LevelTable, DescriptionsTellBypassedLayersApart) {
  LevelTable table{.levels = {with_rule(PairRule::kScore)}};
  const std::string before = describe(table);
  table.levels[0].identity_bypass[0] = {0, 0, 1, 0};
  EXPECT_NE(describe(table), before);
}

TEST(OperatingPoint, SkipsNothingUntilARuleHasAThreshold) {
  for (const PairRule rule : {PairRule::kScore, PairRule::kTopK, PairRule::kTailMass, PairRule::kRelative, PairRule::kSimilar}) {
    EXPECT_EQ(with_rule(rule).skips_nothing(), rule == PairRule::kScore);
  }
  OperatingPoint point = with_rule(PairRule::kScore);
  point.protect_top1 = point.renormalize = point.exempt_local = true;
  point.tau_generated = 0.0f;
  EXPECT_TRUE(point.skips_nothing());
  point.tau_generated = 0.1f;
  EXPECT_FALSE(point.skips_nothing());
  OperatingPoint bypassing = with_rule(PairRule::kScore);
  bypassing.identity_bypass[0] = {0, 0, 0, 1};
  EXPECT_FALSE(bypassing.skips_nothing());
}

TEST(OperatingPoint, KnowsWhetherOwnersAndNeighboursMatter) {
  OperatingPoint point = with_rule(PairRule::kTopK);
  EXPECT_FALSE(point.depends_on_placement() || point.depends_on_batch());
  point.decode_base_k = 1;
  EXPECT_TRUE(point.depends_on_batch() && !point.depends_on_placement());
  point.decode_rank_experts = 1;
  EXPECT_TRUE(point.depends_on_batch() && point.depends_on_placement());
  OperatingPoint by_destination = with_rule(PairRule::kScore);
  by_destination.tau_dst[1][2] = 0.1f;
  EXPECT_TRUE(by_destination.depends_on_placement() && !by_destination.depends_on_batch());
  by_destination.protect_attention = 0.02f;
  EXPECT_TRUE(by_destination.depends_on_batch()) << "a prompt is seen as far as a step takes it";
  OperatingPoint idle = with_rule(PairRule::kScore);
  idle.protect_attention = 0.02f;
  EXPECT_TRUE(idle.skips_nothing() && !idle.depends_on_batch()) << "nothing to protect from";
}

TEST(OperatingPoint, UsesShadowsOnlyWhereThereAreSome) {
  const json unused = point_with({{"tau_shadow", {{"text", {{"node", 0}}}}}});
  const json used = point_with({{"tau_shadow", {{"text", {{"node", 0.1}}}}}});
  const auto load = [](const json& point, ShadowCopies shadows) {
    return load_levels(write(point.dump()), kModel, {.ranks = 2, .ranks_per_node = 2, .shadows = shadows});
  };
  EXPECT_NO_THROW(load(unused, ShadowCopies::kNone));
  const LevelTable levels = load(used, ShadowCopies::kSome);
  EXPECT_TRUE(levels.levels[1].uses_shadows() && levels.levels[1].depends_on_placement());
  EXPECT_FALSE(levels.levels[0].uses_shadows());
  EXPECT_NO_THROW(load(used, ShadowCopies::kUnknown));
  try {
    load(used, ShadowCopies::kNone);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const InvalidFile& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("tau_shadow"), HasSubstr("--shadow_format")));
  }
}

TEST(PlacementWorld, CountsTheRanksOfTheFullestNode) {
  EXPECT_EQ(placement_world(ClusterTopology({0})), (PlacementWorld{.ranks = 1, .ranks_per_node = 1}));
  EXPECT_EQ(placement_world(ClusterTopology({0, 1, 1})), (PlacementWorld{.ranks = 3, .ranks_per_node = 2}));
}

TEST(LevelTable, LevelsOfAnotherPlacementAreRefusedOnlyIfTheyDependOnIt) {
  json file = file_of(full_point());
  file["placement"] = {{"ranks", 4}, {"ranks_per_node", 2}};
  const auto path = write(file.dump());
  EXPECT_NO_THROW(load_levels(path, kModel));
  EXPECT_NO_THROW(load_levels(path, kModel, {.ranks = 4, .ranks_per_node = 2}));
  try {
    load_levels(path, kModel, {.ranks = 4, .ranks_per_node = 4});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const InvalidFile& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("placement: "), HasSubstr("4 ranks, 2 per node"),
                                    HasSubstr("4 ranks, 4 per node"), testing::Not(HasSubstr("\n"))));
  }
  json independent = file_of(with_rule(PairRule::kTopK));
  independent["placement"] = file["placement"];
  EXPECT_NO_THROW(load_levels(write(independent.dump()), kModel, {.ranks = 1, .ranks_per_node = 1}));
}

TEST(LevelTable, MissingFileIsRefusedByItsPath) {
  EXPECT_THROW(load_levels("no/such/operating_point.json", kModel), InvalidFile);
}

}  // namespace
}  // namespace skipper

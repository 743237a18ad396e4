// What calibration computes from measurements, and the files that it reads and goes on from.
#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "evaluation/layer_alpha.h"
#include "evaluation/point_log.h"
#include "evaluation/routing_trace.h"
#include "evaluation/scored_samples.h"
#include "evaluation/skip_calibration.h"
#include "evaluation/skip_calibrator.h"

namespace skipper {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class Folder {
 public:
  explicit Folder(const std::string& name) : path_(fs::path(testing::TempDir()) / name) { fs::create_directory(path_); }
  ~Folder() { fs::remove_all(path_); }
  fs::path operator/(const std::string& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path_ / name) << text; }

 private:
  fs::path path_;
};

TEST(LayerAlpha, SumsToOneAndKeepsZeros) {
  const std::vector<double> losses = {4.0, 1.0, 0.0};
  EXPECT_THAT(effective_alpha(losses, 1.0), ElementsAre(0.8f, 0.2f, 0.0f));
  EXPECT_THAT(effective_alpha(losses, 0.5), ElementsAre(2.0f / 3.0f, 1.0f / 3.0f, 0.0f));
  EXPECT_THAT(effective_alpha(losses, 0.0), ElementsAre(1.0f / 3.0f, 1.0f / 3.0f, 1.0f / 3.0f));
}

TEST(LayerAlpha, DoesNotDependOnTheScaleOfTheLosses) {
  const std::vector<double> losses = {3e-9, 7e-9, 1e-12};
  std::vector<double> doubled;
  for (const double loss : losses) doubled.push_back(2.0 * loss);
  for (const double exponent : kAlphaExponents) EXPECT_EQ(effective_alpha(losses, exponent), effective_alpha(doubled, exponent));
}

TEST(LayerAlpha, IsEqualWhereNoLayerMatters) {
  EXPECT_THAT(effective_alpha(std::vector<double>{0.0, 0.0}, 1.0), ElementsAre(0.5f, 0.5f));
  EXPECT_THAT(effective_alpha(std::vector<double>{0.0}, 0.5), ElementsAre(1.0f));
}

TEST(BypassPoint, SkipsThatLayerOfThatClassAlone) {
  const OperatingPoint point = bypass_point({TokenClass::kVision, 1}, 3, BypassOutput::kZero);
  EXPECT_THAT(point.alpha[1], ElementsAre(0.5f, 0.0f, 0.5f));
  EXPECT_GT(point.tau[1], 0.0f);
  EXPECT_LT(point.tau[1], 1e-30f);
  EXPECT_EQ(point.tau[0], 0.0f);
  const OperatingPoint identity = bypass_point({TokenClass::kText, 2}, 3, BypassOutput::kIdentity);
  EXPECT_THAT(identity.identity_bypass[0], ElementsAre(0, 0, 1));
  EXPECT_TRUE(identity.identity_bypass[1].empty());
  EXPECT_THAT(bypass_point({TokenClass::kText, 0}, 1, BypassOutput::kZero).alpha[0], ElementsAre(0.0f));
}

TEST(BypassOutput, HasTwoNames) {
  EXPECT_EQ(parse_bypass_output("identity", "--bypass"), BypassOutput::kIdentity);
  EXPECT_EQ(name_of(BypassOutput::kZero), "zero");
  EXPECT_THROW(parse_bypass_output("one", "--bypass"), InvalidRequest);
}

TEST(KlAtARatio, LiesOnTheLineThroughTwoMeasurements) {
  EXPECT_DOUBLE_EQ(kl_at(0.5, {0.4, 1.0}, {0.8, 3.0}), 1.5);
  EXPECT_DOUBLE_EQ(kl_at(0.0, {0.4, 1.0}, {0.8, 5.0}), 0.0);
  EXPECT_DOUBLE_EQ(kl_at(0.5, {0.4, 1.0}, {0.4, 3.0}), 2.0);
}

TEST(BestExponent, LosesLeastAtEqualRatios) {
  const auto trials = [](double first_ratio, double first_kl) {
    return std::vector<ExponentTrial>{{0.0, 0.5, 0.0f, first_ratio, first_kl}, {0.0, 0.75, 0.0f, 0.75, 2.0},
                                      {0.5, 0.5, 0.0f, 0.5, 1.0},             {0.5, 0.75, 0.0f, 0.75, 2.0}};
  };
  EXPECT_EQ(best_exponent(trials(0.5, 1.1)), 0.5);
  EXPECT_EQ(best_exponent(trials(0.5, 0.9)), 0.0);
  EXPECT_EQ(best_exponent(trials(0.5, 1.0)), 0.0);  // the smaller when equal
  EXPECT_EQ(best_exponent(trials(0.4, 0.9)), 0.5);  // less loss, but it skipped less
  EXPECT_EQ(best_exponent({}), 0.0);
}

// Two tokens of one layer and two experts.
struct SmallRouting {
  Routing routing{Tensor::empty({2, 2}, DType::kI32), Tensor::empty({2, 2}, DType::kF32)};
  TokenPolicies policies = TokenPolicies::defaults(2);

  SmallRouting() {
    const std::array<int32_t, 4> ids = {1, 0, 1, kNoExpert};
    const std::array<float, 4> weights = {0.75f, 0.25f, 0.5f, 0.0f};
    std::copy(ids.begin(), ids.end(), routing.expert_ids.data<int32_t>());
    std::copy(weights.begin(), weights.end(), routing.expert_weights.data<float>());
  }
};

TEST(RoutingTrace, CountsExpertsAndSharesOfUnskippedTokensByClass) {
  SmallRouting small;
  small.policies.token_class.data<uint8_t>()[1] = static_cast<uint8_t>(TokenClass::kVision);
  RoutingTrace trace({2, 2});
  trace.count(1, small.policies, small.routing);
  EXPECT_THAT(trace.experts(1, TokenPhase::kPrompt, TokenClass::kText), ElementsAre(1, 1));
  EXPECT_THAT(trace.experts(1, TokenPhase::kPrompt, TokenClass::kVision), ElementsAre(0, 1));
  EXPECT_THAT(trace.experts(0, TokenPhase::kPrompt, TokenClass::kText), ElementsAre(0, 0));
  EXPECT_EQ(trace.num_pairs(TokenClass::kText), 2);
  EXPECT_EQ(trace.num_pairs(TokenClass::kVision), 1);
  // A quarter is two octaves under 1; all of a token's weight is in the last bucket.
  EXPECT_EQ(trace.shares(1, TokenClass::kText)[RoutingTrace::kBuckets - 2 * RoutingTrace::kBucketsPerOctave], 1);
  EXPECT_EQ(trace.shares(1, TokenClass::kVision)[RoutingTrace::kBuckets - 1], 1);
  small.policies.level.data<uint8_t>()[0] = 1;
  small.policies.level.data<uint8_t>()[1] = 1;
  trace.count(1, small.policies, small.routing);
  EXPECT_EQ(trace.num_pairs(TokenClass::kText), 2);
}

TEST(RoutingTrace, KeepsPhasesApartAndAddsThemUpForScores) {
  SmallRouting small;
  small.policies.phase.data<uint8_t>()[1] = static_cast<uint8_t>(TokenPhase::kGenerated);
  RoutingTrace trace({1, 2});
  trace.count(0, small.policies, small.routing);
  EXPECT_THAT(trace.experts(0, TokenPhase::kPrompt, TokenClass::kText), ElementsAre(1, 1));
  EXPECT_THAT(trace.experts(0, TokenPhase::kGenerated, TokenClass::kText), ElementsAre(0, 1));
  EXPECT_EQ(trace.shares(0, TokenPhase::kGenerated, TokenClass::kText)[RoutingTrace::kBuckets - 1], 1);
  EXPECT_EQ(trace.shares(0, TokenPhase::kPrompt, TokenClass::kText)[RoutingTrace::kBuckets - 1], 0);
  EXPECT_EQ(trace.shares(0, TokenClass::kText)[RoutingTrace::kBuckets - 1], 1);
  EXPECT_EQ(trace.num_pairs(TokenClass::kText), 3);
}

TEST(RoutingTrace, HasNoScoreAboveItsHighest) {
  SmallRouting small;
  RoutingTrace trace({1, 2});
  trace.count(0, small.policies, small.routing);
  const std::vector<float> alpha = {1.0f};
  EXPECT_EQ(trace.scores(TokenClass::kText, alpha).quantile(1.0), 1.0);
  EXPECT_TRUE(trace.scores(TokenClass::kVision, alpha).is_empty());
  EXPECT_NEAR(trace.scores(TokenClass::kText, alpha).quantile(1.0 / 3.0), 0.25, 0.25 * 0.1);
  EXPECT_EQ(RoutingTrace::edges().size(), static_cast<size_t>(RoutingTrace::kBuckets + 1));
  EXPECT_EQ(RoutingTrace::edges().back(), 1.0);
}

TEST(PointLog, GoesOnWithAllWholeLines) {
  const Folder folder("point_log_test");
  const LoggedPoint point{0.1 + 0.2, 7, 11};
  {
    PointLog log(folder / "log", "model a; data b");
    log.add("first", point);
    log.add("second", {1.0 / 3.0, 3, 5});
  }
  fs::resize_file(folder / "log", fs::file_size(folder / "log") - 9);
  PointLog again(folder / "log", "model a; data b");
  EXPECT_EQ(again.size(), 1u);
  EXPECT_EQ(again.find("first"), point);
  EXPECT_EQ(again.find("second"), std::nullopt);
  again.remove();
  EXPECT_FALSE(fs::exists(folder / "log"));
}

TEST(PointLog, RefusesOtherSettingsAndNamesThem) {
  const Folder folder("point_log_refusal_test");
  PointLog(folder / "log", "model a; data b; ranks 2").add("first", {});
  const auto error = [&](const std::string& name, const std::string& settings) -> std::string {
    try {
      PointLog(folder / name, settings);
    } catch (const Error& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_THAT(error("log", "model a; data b; ranks 3"), HasSubstr("begun with 'ranks 2', not 'ranks 3'"));
  EXPECT_THAT(error("log", "model c; data b; ranks 2"), HasSubstr("begun with 'model a"));
  EXPECT_THAT(error("gone/log", "x"), HasSubstr("cannot be written"));
  folder.write("other", "something else\n");
  EXPECT_THAT(error("other", "x"), HasSubstr("is no record of a calibration"));
  EXPECT_EQ(error("log", "model a; data b; ranks 2"), "accepted");
}

class ScoredSamplesTest : public testing::Test {
 protected:
  ScoredSamples load(const SampleLimits& limits = {}) const {
    return load_scored_samples(folder_.path(), limits, {4084}, tokenizer_);
  }
  void write_questions(int count) const {
    std::string lines;
    for (int i = 0; i < count; ++i) lines += R"({"task": "t", "question": "q", "answer": ")" + std::to_string(i) + "\"}\n";
    folder_.write("chat.jsonl", lines);
  }

  Folder folder_{"scored_samples_test"};
  BpeTokenizer tokenizer_{fs::path(SKIPPER_SOURCE_DIR) / "models/demo"};
};

std::string held_out_answers(const ScoredSamples& samples) {
  std::string answers;
  for (const ScoredSample& one : samples.samples) {
    if (one.split == DataSplit::kHeldOut) answers += one.sample.question.answer + " ";
  }
  return answers;
}

TEST_F(ScoredSamplesTest, HoldsOutEveryFifthOfAKindWhateverTheLimit) {
  write_questions(20);
  EXPECT_EQ(held_out_answers(load()), "4 9 14 19 ");
  EXPECT_EQ(held_out_answers(load({.samples = 10})), "4 14 ");
  EXPECT_EQ(load({.samples = 10}).samples.size(), 10u);
  EXPECT_EQ(load({.samples = 3}).samples.size(), 3u);
  EXPECT_EQ(held_out_answers(load({.samples = 3})), "");
}

TEST_F(ScoredSamplesTest, ScoresAnswersWithTheirEndAndTextsButForTheirFirstToken) {
  write_questions(1);
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "word ";
  folder_.write("text.txt", text);
  const ScoredSamples all = load({.text_windows = 1000});
  int64_t num_windows = 0;
  for (const ScoredSample& one : all.samples) {
    if (one.kind == SampleKind::kText) {
      ++num_windows;
      EXPECT_EQ(one.num_scored, static_cast<int64_t>(one.sample.text_ids.size()) - 1);
    } else {
      EXPECT_EQ(one.num_scored, static_cast<int64_t>(tokenizer_.encode("0", SpecialTokens::kAsText).size()) + 1);
    }
  }
  EXPECT_GT(num_windows, 3);
  EXPECT_EQ(load({.text_windows = 2}).samples.size(), 3u);
  EXPECT_EQ(load({.text_windows = 0}).samples.size(), 1u);
}

TEST_F(ScoredSamplesTest, HashesWhatItTakes) {
  write_questions(6);
  const std::string hash = load().hash;
  EXPECT_EQ(hash, load().hash);
  EXPECT_NE(hash, load({.samples = 5}).hash);
  write_questions(7);
  EXPECT_NE(hash, load().hash);
}

TEST_F(ScoredSamplesTest, RefusesAnEmptyAnswer) {
  folder_.write("chat.jsonl", R"({"task": "t", "question": "why?", "answer": ""})" "\n");
  EXPECT_THROW(load_scored_samples(folder_.path(), {}, {}, tokenizer_), InvalidFile);
}

TEST(CalibrationFile, HoldsWhatTheFrontierReads) {
  SkipCalibration calibration{.model_fingerprint = "f", .trace = RoutingTrace({1, 2})};
  for (ClassCalibration& one : calibration.classes) one = {{0.5}, 0.25, {1.0f}, {{0.25, 0.5, 0.1f, 0.51, 0.02}}};
  SmallRouting small;
  calibration.trace.count(0, small.policies, small.routing);
  const nlohmann::json file = nlohmann::json::parse(to_json(calibration));
  EXPECT_EQ(file["version"], 1);
  EXPECT_EQ(file["convention"]["bypass"], "zero");
  EXPECT_EQ(file["alpha"]["vision"], nlohmann::json({1.0}));
  EXPECT_EQ(file["bypass_kl"]["text"], nlohmann::json({0.5}));
  EXPECT_EQ(file["trials"]["text"][0]["kl"], 0.02);
  EXPECT_EQ(file["use"]["prompt"]["text"], nlohmann::json::parse("[[1, 2]]"));
  EXPECT_FALSE(file["use"].contains("generated"));
  EXPECT_EQ(file["scores"]["edges"].size(), 129u);
  EXPECT_EQ(file["scores"]["text"][0].size(), 128u);
}

}  // namespace
}  // namespace skipper

// Distances of operating points on the demo model, through real engines.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "evaluation/layer_alpha.h"
#include "evaluation/skip_evaluator.h"
#include "model/model_config.h"
#include "tests/support/demo_engine.h"

namespace skipper {
namespace {

const std::filesystem::path kDemo = std::filesystem::path(SKIPPER_SOURCE_DIR) / "models/demo";
constexpr int kLayers = 6;

void ignore_progress(size_t, size_t) {}

struct DemoData {
  ModelConfig config = load_model_config(kDemo);
  MultimodalProcessor processor{kDemo, config, ImageLimits()};
  ScoredSamples samples = load_scored_samples(kDemo / "calibration", {.samples = 15, .text_windows = 1}, config.eos_token_ids,
                                              processor.tokenizer());
};

struct EvaluationRun {
  int num_ranks = 1;
  size_t in_flight = 32;
};

std::vector<Measurement> measure(const DemoData& data, const std::vector<OperatingPoint>& points, const EvaluationRun& run = {}) {
  DemoEngineOptions options;
  options.num_ranks = run.num_ranks;
  options.engine = demo_engine_config();
  std::vector<Measurement> measured;
  with_demo_engine(options, [&](DemoEngine& demo) {
    SkipEvaluator evaluator({demo.engine, demo.queue, data.processor, data.samples},
                            {.num_ranks = run.num_ranks, .in_flight_per_rank = run.in_flight,
                             .vocab_size = data.config.vocab_size});
    evaluator.measure_reference(DataSplit::kSearch, ignore_progress);
    measured = evaluator.evaluate(points, {}, ignore_progress);
  });
  return measured;
}

TEST(SkipEvaluator, FindsNoDistanceWhereNothingIsSkipped) {
  const DemoData data;
  const Measurement same = measure(data, {demo_operating_point(0.0f, 0.0f)}).front();
  EXPECT_EQ(same.kl(), 0.0);
  EXPECT_EQ(same.num_flips(), 0);
  EXPECT_EQ(same.samples.size(), 12u);
  EXPECT_GT(same.num_scored(), 500);
  EXPECT_EQ(same.usage().pairs_skipped, 0);
}

TEST(SkipEvaluator, DoesNotDependOnWhatRunsTogether) {
  const DemoData data;
  const OperatingPoint some = demo_operating_point(0.03f, 0.05f);
  const OperatingPoint bypass = bypass_point({TokenClass::kText, 2}, kLayers, BypassOutput::kZero);
  const std::vector<Measurement> together = measure(data, {some, bypass});
  const std::vector<Measurement> alone = measure(data, {bypass}, {.in_flight = 1});
  EXPECT_EQ(together[1].samples, alone[0].samples);
  EXPECT_GT(together[0].kl(), 0.0);
  EXPECT_NE(together[0].kl(), together[1].kl());
}

TEST(SkipEvaluator, DependsOnTheNumberOfRanksInLastBitsOnly) {
  const DemoData data;
  const std::vector<OperatingPoint> points = {demo_operating_point(0.03f, 0.05f)};
  const Measurement one = measure(data, points).front();
  const Measurement two = measure(data, points, {.num_ranks = 2}).front();
  // Partial sums of two ranks are rounded to BF16 before they are added.
  EXPECT_NEAR(one.nll(), two.nll(), 2e-3 * one.nll());
  EXPECT_NEAR(one.kl(), two.kl(), 0.05 * one.kl());
}

TEST(SkipEvaluator, GivesTheSameMeansForTwiceTheDataInAnotherOrder) {
  DemoData data;
  const std::vector<OperatingPoint> points = {demo_operating_point(0.03f, 0.05f)};
  const Measurement once = measure(data, points).front();
  const std::vector<ScoredSample> samples = data.samples.samples;
  std::reverse(data.samples.samples.begin(), data.samples.samples.end());
  data.samples.samples.insert(data.samples.samples.end(), samples.begin(), samples.end());
  const Measurement twice = measure(data, points).front();
  EXPECT_EQ(twice.num_scored(), 2 * once.num_scored());
  EXPECT_NEAR(twice.mean_kl(), once.mean_kl(), 1e-12 * once.mean_kl());
}

TEST(SkipEvaluator, BypassesTheLayersOfOneClassByZeroOrIdentity) {
  const DemoData data;
  const BypassedLayer last_of_vision{TokenClass::kVision, kLayers - 1};
  const std::vector<Measurement> measured =
      measure(data, {bypass_point({TokenClass::kVision, 0}, kLayers, BypassOutput::kZero),
                     bypass_point({TokenClass::kVision, 0}, kLayers, BypassOutput::kIdentity),
                     bypass_point(last_of_vision, kLayers, BypassOutput::kZero)});
  for (size_t i = 0; i < measured[0].samples.size(); ++i) {
    const bool has_picture = data.samples.samples[measured[0].samples[i].sample].kind == SampleKind::kVisionQuestion;
    EXPECT_EQ(measured[0].samples[i].kl > 0.0, has_picture);
    // Nobody reads what the last layer makes of a picture.
    EXPECT_EQ(measured[2].samples[i].kl, 0.0);
  }
  EXPECT_NE(measured[0].kl(), measured[1].kl());
}

// Spearman's rank correlation of values without equals with 0, 1, 2, ...
double correlation_with_order(const std::vector<double>& values) {
  const auto count = static_cast<double>(values.size());
  double squares = 0.0;
  for (size_t i = 0; i < values.size(); ++i) {
    const auto place = std::count_if(values.begin(), values.end(), [&](double other) { return other < values[i]; });
    squares += std::pow(static_cast<double>(place) - static_cast<double>(i), 2.0);
  }
  return 1.0 - 6.0 * squares / (count * (count * count - 1.0));
}

// What is skipped in one layer changes the routes of the next, so no two neighbours need be in order; the trend must be.
TEST(SkipEvaluator, AHigherLevelSendsLessAndLosesMoreOnTheWhole) {
  const DemoData data;
  std::vector<OperatingPoint> points;
  for (float tau = 0.01f; points.size() < 9; tau *= 1.35f) points.push_back(demo_operating_point(tau, 1.5f * tau));
  std::vector<double> skipped, bytes, losses;
  for (const Measurement& one : measure(data, points, {.num_ranks = 4})) {
    skipped.push_back(static_cast<double>(one.usage().pairs_skipped));
    bytes.push_back(static_cast<double>(one.usage().bytes_sent));
    losses.push_back(one.mean_kl());
  }
  EXPECT_GE(correlation_with_order(skipped), 0.95);
  EXPECT_LE(correlation_with_order(bytes), -0.95);
  EXPECT_GE(correlation_with_order(losses), 0.9);
  EXPECT_LT(bytes.back(), 0.8 * bytes.front());
}

TEST(SkipEvaluator, RefusesReferencesThatTakeTooMuchMemory) {
  const DemoData data;
  DemoEngineOptions options;
  options.engine = demo_engine_config();
  with_demo_engine(options, [&](DemoEngine& demo) {
    const EvaluatorSettings small{.vocab_size = data.config.vocab_size, .reference_bytes_per_rank = 1'000'000};
    EXPECT_THROW(SkipEvaluator({demo.engine, demo.queue, data.processor, data.samples}, small), ResourceExhausted);
  });
}

TEST(Scoring, BeginsWhereItIsToldTo) {
  DemoEngineOptions options;
  options.engine = demo_engine_config();
  with_demo_engine(options, [&](DemoEngine& demo) {
    const auto scored = [&](int32_t score_from) {
      GenerationRequest request;
      request.prompt_ids = {100, 200, 300, 400, 500};
      request.score_prompt = true;
      request.score_from = score_from;
      return demo.driver.run(1, [&](size_t) { return request; }, ignore_progress).front();
    };
    EXPECT_EQ(scored(1).num_scored, 4);
    EXPECT_EQ(scored(4).num_scored, 1);
    EXPECT_GT(scored(1).prompt_nll, scored(4).prompt_nll);
    EXPECT_THROW(scored(0), InvalidRequest);
    EXPECT_THROW(scored(5), InvalidRequest);
  });
}

}  // namespace
}  // namespace skipper

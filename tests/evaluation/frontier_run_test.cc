// The search for a ladder on a small model of pairs whose routes are frozen, and what is written of it.
#include "evaluation/frontier_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "evaluation/frontier_file.h"
#include "evaluation/frontier_page.h"
#include "evaluation/measurement_cache.h"

namespace skipper {
namespace {

using ::testing::HasSubstr;

constexpr size_t kNumLayers = 3;
constexpr size_t kTopK = 4;
constexpr int64_t kRowBytes = 100;
constexpr double kSecondsPerPair = 2e-6;
constexpr double kSecondsPerByte = 1e-8;

constexpr double kShadowError = 0.03;
constexpr double kLossOfGenerated = 6.0;  // of a dropped weight, beside 1 of prompts

struct FakeToken {
  bool is_generated = false;
  size_t token_class = 0;
  size_t layer = 0;
  std::array<float, kTopK> p{};  // descending, sum 1
};

// Tokens with routing weights; a dropped weight costs its square, on a shadow a little of that; a token with all pairs dropped
// or on shadows sends nothing.
class FakeModel {
 public:
  explicit FakeModel(int num_ranks) : num_ranks_(num_ranks) {
    std::mt19937 random(7);
    std::uniform_real_distribution<float> weight(0.05f, 1.0f);
    for (size_t i = 0; i < 300; ++i) {
      FakeToken token{i % 10 == 0, i % 2, i % kNumLayers, {}};
      float sum = 0.0f;
      for (float& p : token.p) sum += p = weight(random);
      for (float& p : token.p) p /= sum;
      std::sort(token.p.rbegin(), token.p.rend());
      tokens_.push_back(token);
    }
  }

  MethodInputs inputs() const {
    MethodInputs inputs;
    inputs.top_k = kTopK;
    inputs.equal = scores_with({1.0f / 3, 1.0f / 3, 1.0f / 3});
    inputs.calibrated = scores_with({0.5f, 0.25f, 0.25f});
    inputs.ratings = ExpertRatings{.num_moe_layers = kNumLayers, .num_experts = 1};
    inputs.ratings->capacity = inputs.ratings->response = inputs.ratings->similarity = std::vector(kNumLayers, 1.0f);
    inputs.ratings->second_share = {std::vector(kNumLayers, 0.5f), std::vector(kNumLayers, 0.6f)};
    return inputs;
  }

  PointMeasurement measure(const OperatingPoint& point) const {
    PointMeasurement m;
    m.num_scored = 100;
    m.num_steps = 10;
    for (const FakeToken& token : tokens_) add(token, point, m);
    m.seconds = 0.5 + kSecondsPerPair * m.pairs() + kSecondsPerByte * m.remote_bytes();
    return m;
  }

  PointEvaluator evaluator() const {
    return [this](const OperatingPoint& point, DataSplit) { return measure(point); };
  }

 private:
  SkipScores scores_with(const std::vector<float>& alpha) const {
    std::array<std::vector<ScoreCount>, kNumSkippableClasses> counts;
    for (const FakeToken& token : tokens_) {
      for (const float p : token.p) counts[token.token_class].push_back({alpha[token.layer] * p, 1.0});
    }
    return {{alpha, alpha}, {ScoreDistribution(counts[0]), ScoreDistribution(counts[1])}};
  }

  static bool drops(const FakeToken& token, size_t slot, const OperatingPoint& point) {
    const size_t c = token.token_class;
    if (point.pair_rule == PairRule::kTopK) return point.kept_k[c] > 0.0f && static_cast<float>(slot) >= point.kept_k[c];
    if (point.pair_rule == PairRule::kTailMass) {
      float tail = 0.0f;
      for (size_t u = slot; u < kTopK; ++u) tail += token.p[u];
      return tail < point.beta[c][token.layer];
    }
    if (point.pair_rule == PairRule::kSimilar) return slot > 0 && token.p[slot] < point.beta[c][token.layer] * token.p[0];
    if (point.protect_top1 && slot == 0) return false;
    const float tau = token.is_generated ? point.tau_generated.value_or(point.tau[c]) : point.tau[c];
    return point.alpha[c][token.layer] * token.p[slot] < tau;
  }

  static double loss_of(const FakeToken& token) {
    if (token.is_generated) return kLossOfGenerated;
    return token.token_class == 0 ? 1.0 : 0.1;
  }

  void add(const FakeToken& token, const OperatingPoint& point, PointMeasurement& m) const {
    int64_t run = 0;
    double kept = 0.0;  // Σ p²
    for (size_t slot = 0; slot < kTopK; ++slot) {
      if (drops(token, slot, point)) {
        m.kl += token.p[slot] * token.p[slot] * loss_of(token);
      } else {
        kept += token.p[slot] * token.p[slot];
        ++run;
      }
    }
    m.pairs_run[token.token_class] += run;
    m.pairs_skipped[token.token_class] += static_cast<int64_t>(kTopK) - run;
    if (num_ranks_ == 1) return;
    const double on_shadows = kShadowError * kept;
    const bool uses_shadows = point.alpha[token.token_class][token.layer] * on_shadows < point.tau_shadow[token.token_class][1];
    if (uses_shadows) m.kl += on_shadows * loss_of(token);
    const bool is_sent = run > 0 && point.tau_dst[token.token_class][1] < 0.2f && !uses_shadows;
    (is_sent ? m.bytes_sent : m.bytes_saved)[static_cast<size_t>(Hop::kNode)] += kRowBytes;
  }

  int num_ranks_;
  std::vector<FakeToken> tokens_;
};

FrontierSettings settings_for(FrontierObjective objective, const std::string& methods = "gmlg_dmt") {
  FrontierSettings settings;
  settings.objective = objective;
  settings.grid = 20;
  settings.methods = parse_methods(methods);
  settings.targets = ladder_targets();
  return settings;
}

void ignore_progress(size_t, size_t) {}

void expect_ascending(const std::vector<MeasuredPoint>& ladder) {
  ASSERT_FALSE(ladder.empty());
  EXPECT_TRUE(ladder.front().point.skips_nothing());
  for (size_t i = 1; i < ladder.size(); ++i) {
    EXPECT_GT(ladder[i].held_out.skip_ratio(), ladder[i - 1].held_out.skip_ratio());
    EXPECT_GE(ladder[i].held_out.mean_kl(), ladder[i - 1].held_out.mean_kl());
  }
}

std::filesystem::path temporary_file(const std::string& name) {
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / name;
  std::filesystem::remove(path);
  return path;
}

TEST(FrontierRun, EveryLevelMeetsItsTargetAndTheLadderAscends) {
  const FakeModel model(1);
  const FrontierResult result =
      run_frontier(model.inputs(), settings_for(FrontierObjective::kPairs), model.evaluator(), ignore_progress);
  ASSERT_EQ(result.curves.size(), 1u);
  ASSERT_EQ(result.curves[0].points.size(), ladder_targets().size());
  for (const MeasuredPoint& one : result.curves[0].points) EXPECT_GE(one.held_out.skip_ratio(), one.target);
  EXPECT_GE(result.ladder.size(), 10u);
  EXPECT_TRUE(result.is_monotone) << "frozen routes are monotone";
  EXPECT_LE(result.num_search_points, 21 * 21);
  expect_ascending(result.ladder);
}

TEST(FrontierRun, ProgressEndsWithNothingLeft) {
  const FakeModel model(1);
  size_t last_done = 0, last_total = 0;
  run_frontier(model.inputs(), settings_for(FrontierObjective::kPairs), model.evaluator(), [&](size_t done, size_t total) {
    EXPECT_EQ(done, last_done + 1);
    EXPECT_GE(total, done);
    last_done = done;
    last_total = total;
  });
  EXPECT_EQ(last_done, last_total);
}

TEST(FrontierRun, AnObjectiveInBytesSavesTheBytesAskedForAndUsesTheDestinationThresholds) {
  const FakeModel model(2);
  FrontierSettings settings = settings_for(FrontierObjective::kBytes);
  settings.num_destination_thresholds = 2;
  const FrontierResult result = run_frontier(model.inputs(), settings, model.evaluator(), ignore_progress);
  for (const MeasuredPoint& one : result.curves[0].points) EXPECT_GE(one.held_out.saved_bytes_ratio(), one.target);
  expect_ascending(result.ladder);
}

TEST(FrontierRun, AnObjectiveInBytesOnOneRankIsRefused) {
  const FakeModel model(1);
  try {
    run_frontier(model.inputs(), settings_for(FrontierObjective::kBytes), model.evaluator(), ignore_progress);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("objective bytes: nothing is sent to other ranks; start at least 2 ranks"));
  }
}

TEST(FrontierRun, AnObjectiveInTimeSavesTheShareAskedForOfModelledTime) {
  const FakeModel model(2);
  const FrontierResult result =
      run_frontier(model.inputs(), settings_for(FrontierObjective::kTime), model.evaluator(), ignore_progress);
  EXPECT_LT(result.step_time.relative_error, 1e-6);
  const double longest = result.ladder.front().held_out.seconds;
  for (const MeasuredPoint& one : result.curves[0].points) {
    const double saved = (longest - one.held_out.seconds) / (longest - 0.5);
    EXPECT_GE(saved, one.target - 1e-6);
  }
  expect_ascending(result.ladder);
}

TEST(FrontierRun, ShadowsLoseLessForTheSameBytes) {
  const FakeModel model(2);
  FrontierSettings settings = settings_for(FrontierObjective::kBytes);
  const FrontierResult without = run_frontier(model.inputs(), settings, model.evaluator(), ignore_progress);
  settings.num_shadow_thresholds = 3;
  settings.shadow_error = kShadowError;
  const FrontierResult with = run_frontier(model.inputs(), settings, model.evaluator(), ignore_progress);
  size_t num_better = 0;
  for (size_t i = 0; i < with.curves[0].points.size(); ++i) {
    const MeasuredPoint& own = with.curves[0].points[i];
    EXPECT_GE(own.held_out.saved_bytes_ratio(), own.target);
    if (i >= without.curves[0].points.size()) continue;
    EXPECT_LE(own.held_out.kl, without.curves[0].points[i].held_out.kl);
    if (own.point.uses_shadows()) ++num_better;
    EXPECT_FALSE(without.curves[0].points[i].point.uses_shadows());
  }
  EXPECT_GT(num_better, 3u);
  EXPECT_GE(with.ladder.back().held_out.saved_bytes_ratio(), with.curves[0].points.back().target);
  for (size_t i = 1; i < with.ladder.size(); ++i) {
    EXPECT_GT(with.ladder[i].held_out.saved_bytes_ratio(), with.ladder[i - 1].held_out.saved_bytes_ratio());
    EXPECT_GT(with.ladder[i].held_out.kl, with.ladder[i - 1].held_out.kl);
  }
}

TEST(FrontierRun, AThresholdOfGeneratedTokensLosesLessAtNoLessGain) {
  const FakeModel model(1);
  FrontierSettings settings = settings_for(FrontierObjective::kPairs);
  const FrontierResult same = run_frontier(model.inputs(), settings, model.evaluator(), ignore_progress);
  settings.num_generated_steps = 9;
  const FrontierResult own = run_frontier(model.inputs(), settings, model.evaluator(), ignore_progress);
  ASSERT_EQ(own.curves[0].points.size(), same.curves[0].points.size());
  size_t num_lower = 0;
  for (size_t i = 0; i < own.curves[0].points.size(); ++i) {
    const MeasuredPoint& before = same.curves[0].points[i];
    const MeasuredPoint& after = own.curves[0].points[i];
    EXPECT_FALSE(before.point.tau_generated);
    EXPECT_GE(after.held_out.skip_ratio(), after.target);
    EXPECT_LE(after.held_out.mean_kl(), before.held_out.mean_kl());
    if (!after.point.tau_generated) continue;
    EXPECT_LT(*after.point.tau_generated, after.point.tau[0]);
    EXPECT_LT(after.held_out.mean_kl(), before.held_out.mean_kl());
    ++num_lower;
  }
  EXPECT_GE(num_lower, 5u);
  expect_ascending(own.ladder);
}

// In the fake model layers are all alike, and plain weights the better scores.
TEST(FrontierRun, TheLadderIsNeverWorseThanPlainThresholdsThatWereMeasured) {
  const FakeModel model(1);
  const FrontierSettings settings = settings_for(FrontierObjective::kPairs, "dmt");
  const FrontierResult result = run_frontier(model.inputs(), settings, model.evaluator(), ignore_progress);
  const std::vector<MeasuredPoint>& plain = result.curves[0].points;
  ASSERT_EQ(result.curves[0].method.name, "dmt");
  for (const MeasuredPoint& one : plain) {
    EXPECT_TRUE(std::ranges::any_of(result.ladder, [&](const MeasuredPoint& level) {
      return level.held_out.skip_ratio() >= one.held_out.skip_ratio() && level.held_out.mean_kl() <= one.held_out.mean_kl();
    })) << "target " << one.target;
  }
  EXPECT_EQ(result.num_beaten + static_cast<int>(result.ladder.size()), 2 * static_cast<int>(plain.size()) - 1);
  expect_ascending(result.ladder);
}

TEST(FrontierRun, ALossThatIsNoNumberIsRefusedWithTheThresholds) {
  const FakeModel model(1);
  const PointEvaluator broken = [&](const OperatingPoint& point, DataSplit) {
    PointMeasurement m = model.measure(point);
    if (point.tau[0] > 0.0f) m.kl = std::nan("");
    return m;
  };
  try {
    run_frontier(model.inputs(), settings_for(FrontierObjective::kPairs), broken, ignore_progress);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("KL is nan with thresholds"));
  }
}

TEST(FrontierRun, DataWithoutAnswersIsRefused) {
  const FakeModel model(1);
  const PointEvaluator silent = [&](const OperatingPoint& point, DataSplit) {
    PointMeasurement m = model.measure(point);
    m.num_scored = 0;
    return m;
  };
  EXPECT_THROW(run_frontier(model.inputs(), settings_for(FrontierObjective::kPairs), silent, ignore_progress), Error);
}

TEST(FrontierRun, ChoosesOnOneSplitAndReportsTheOther) {
  const FakeModel model(1);
  const PointEvaluator evaluate = [&](const OperatingPoint& point, DataSplit split) {
    PointMeasurement m = model.measure(point);
    if (split == DataSplit::kHeldOut) m.kl += 1000.0;
    return m;
  };
  const FrontierResult result =
      run_frontier(model.inputs(), settings_for(FrontierObjective::kPairs), evaluate, ignore_progress);
  for (const MeasuredPoint& level : result.ladder) EXPECT_GE(level.held_out.kl, 1000.0);
}

TEST(FrontierMethods, EveryFamilySkipsMoreAlongItsParameterOrLess) {
  const FakeModel model(1);
  for (const FrontierMethod& method : frontier_methods()) {
    if (method.kind == MethodKind::kSearched) continue;
    const std::vector<MethodPoint> points = method.points(model.inputs());
    ASSERT_GE(points.size(), 6u) << method.name;
    double last = -1.0;
    for (const MethodPoint& one : points) {
      const double ratio = model.measure(one.point).skip_ratio();
      EXPECT_GE(ratio, last) << method.name << " at " << one.parameter;
      EXPECT_GE(ratio, 0.0);
      last = ratio;
    }
    EXPECT_GT(last, 0.4) << method.name;
  }
}

TEST(FrontierMethods, SearchedOnesBeginAtNothingAndEndAtAllTheyCanSkip) {
  const MethodInputs inputs = FakeModel(2).inputs();
  for (const FrontierMethod& method : frontier_methods()) {
    if (method.kind != MethodKind::kSearched) continue;
    const SkipScores& scores = method.rule.scores(inputs);
    const ThresholdLists lists = method.rule.thresholds(scores, 5);
    for (const std::vector<float>& list : lists) {
      EXPECT_EQ(list.size(), 6u) << method.name;
      EXPECT_TRUE(std::is_sorted(list.begin(), list.end())) << method.name;
    }
    EXPECT_TRUE(method.rule.point(scores, {lists[0].front(), lists[1].front()}).skips_nothing()) << method.name;
    const OperatingPoint all = method.rule.point(scores, {lists[0].back(), lists[1].back()});
    for (size_t c = 0; c < kNumSkippableClasses; ++c) {
      // No score is over the largest alpha, no sum of p² and no tail over 1.
      const float largest = *std::max_element(all.alpha[c].begin(), all.alpha[c].end());
      const bool takes_tails = all.pair_rule == PairRule::kTailMass && all.beta[c].front() == 1.0f;
      const bool takes_destinations = all.tau_dst[c][static_cast<size_t>(Hop::kNetwork)] > 0.0f;
      const double most = scores.scores[c].quantile(1.0);
      EXPECT_TRUE(takes_tails || takes_destinations || all.tau[c] > most) << method.name;
      EXPECT_LE(most, largest) << method.name;
    }
    EXPECT_EQ(all.depends_on_placement(), method.least_ranks > 1) << method.name;
  }
}

TEST(FrontierMethods, WhatDependsOnPlacementNeedsSeveralRanks) {
  const size_t on_one = methods_for_ranks(parse_methods("all"), 1).size();
  EXPECT_EQ(on_one + 2, frontier_methods().size());
  EXPECT_EQ(methods_for_ranks(parse_methods("all"), 2).size(), frontier_methods().size());
  EXPECT_EQ(methods_for_ranks(parse_methods("destination"), 1).front().name, "gmlg_dmt");
}

TEST(FrontierMethods, WhatNeedsRatingsIsLeftOutByNameWithoutThem) {
  std::vector<FrontierMethod> methods = parse_methods("ace,dmt,diep");
  EXPECT_EQ(remove_methods_by_ratings(methods), (std::vector<std::string>{"ace", "diep"}));
  ASSERT_EQ(methods.size(), 2u);
  EXPECT_EQ(methods[0].name, "dmt");
  EXPECT_TRUE(remove_methods_by_ratings(methods).empty());
}

TEST(FrontierMethods, TheRulesOfOthersAreWhatTheirPapersSay) {
  const MethodInputs inputs = FakeModel(1).inputs();
  const auto points_of = [&](const std::string& name) { return parse_methods(name).front().points(inputs); };
  for (const MethodPoint& one : points_of("mc_moe")) {
    EXPECT_EQ(one.point.protect_attention, 0.02f);
    EXPECT_TRUE(one.point.renormalize && one.point.depends_on_batch());
  }
  bool has_published_threshold = false;
  for (const MethodPoint& one : points_of("diep")) {
    has_published_threshold |= one.point.beta == inputs.ratings->second_share;
    EXPECT_EQ(one.point.expert_similarity, inputs.ratings->similarity);
  }
  EXPECT_FALSE(has_published_threshold) << "8 points lie around it";
  MethodInputs odd = inputs;
  odd.num_points = 9;
  EXPECT_EQ(parse_methods("diep").front().points(odd)[4].point.beta, inputs.ratings->second_share);
  for (const MethodPoint& one : points_of("ace")) EXPECT_TRUE(one.point.protect_top1 && !one.point.expert_scale.empty());
}

TEST(FrontierMethods, NamesChooseAndTheNearestIsSuggested) {
  EXPECT_EQ(parse_methods("all").size(), frontier_methods().size());
  const std::vector<FrontierMethod> chosen = parse_methods("dmt,gmlg_dmt,reduced_k");
  ASSERT_EQ(chosen.size(), 3u);
  EXPECT_EQ(chosen[1].name, "reduced_k");
  EXPECT_EQ(chosen.back().name, "gmlg_dmt") << "the ladder's method comes last, once";
  EXPECT_EQ(parse_methods("").size(), 1u);
  try {
    parse_methods("reduced");
    FAIL();
  } catch (const InvalidRequest& error) {
    EXPECT_THAT(error.what(), HasSubstr("unknown method 'reduced'"));
    EXPECT_THAT(error.what(), HasSubstr("reduced_k, "));
  }
}

TEST(FrontierObjectives, UnknownOnesAreRefusedWithTheNearest) {
  EXPECT_EQ(parse_objective("time"), FrontierObjective::kTime);
  EXPECT_THROW(parse_objective(""), InvalidRequest);
  try {
    parse_objective("byte");
    FAIL();
  } catch (const InvalidRequest& error) {
    EXPECT_THAT(error.what(), HasSubstr("did you mean 'bytes'?"));
  }
}

TEST(FrontierFile, IsReadBackAsTheSameLevels) {
  const FakeModel model(2);
  FrontierSettings settings = settings_for(FrontierObjective::kBytes);
  settings.num_destination_thresholds = 1;
  const FrontierResult result = run_frontier(model.inputs(), settings, model.evaluator(), ignore_progress);
  const std::filesystem::path path = temporary_file("frontier.json");
  write_file_atomically(path, to_json(result, {.model_fingerprint = "abc", .world = {.ranks = 2, .ranks_per_node = 2}}));
  const LevelTable table = load_levels(path, {"abc", kNumLayers}, {.ranks = 2, .ranks_per_node = 2});
  ASSERT_EQ(table.levels.size(), result.ladder.size());
  for (size_t i = 0; i < table.levels.size(); ++i) EXPECT_EQ(table.levels[i], result.ladder[i].point) << "level " << i;
  EXPECT_THROW(load_levels(path, {"other", kNumLayers}), InvalidFile);

  std::ifstream file(path);
  const nlohmann::json level = nlohmann::json::parse(file)["levels"][1]["measured"];
  const PointMeasurement& measured = result.ladder[1].held_out;
  EXPECT_EQ(level["kl"], measured.mean_kl());
  EXPECT_EQ(level["skip_ratio"]["all"], measured.skip_ratio());
  EXPECT_EQ(level["skip_ratio"]["vision"]["prompt"], measured.skip_ratio_of(TokenClass::kVision));
  EXPECT_EQ(level["bytes"]["node"]["saved"], measured.bytes_saved[1]);
  EXPECT_NEAR(level["predicted_step_ms"], 1e3 * measured.step_seconds(), 1e-6);
}

TEST(FrontierFile, WhatCannotBeWrittenIsRefusedAndLeavesNothing) {
  EXPECT_THROW(require_writable("/nonexistent/frontier.json"), Error);
  EXPECT_THROW(require_writable(testing::TempDir()), Error);
  EXPECT_THROW(write_file_atomically("/nonexistent/frontier.json", "x"), Error);
  const std::filesystem::path path = temporary_file("kept.json");
  write_file_atomically(path, "old");
  require_writable(path);
  EXPECT_TRUE(std::filesystem::exists(path)) << "an old file stays until there is a new one";
  EXPECT_FALSE(std::filesystem::exists(path.string() + ".new"));
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(FrontierPage, DrawsACurvePerMethodAndChartAndEscapesNames) {
  for (const int num_ranks : {1, 2}) {
    const FakeModel model(num_ranks);
    FrontierSettings settings = settings_for(FrontierObjective::kPairs, "all");
    settings.methods = methods_for_ranks(std::move(settings.methods), 1);
    const FrontierResult result = run_frontier(model.inputs(), settings, model.evaluator(), ignore_progress);
    const std::string page = to_page(result, {"a<b>&\"c\"", "data", num_ranks});
    EXPECT_EQ(count_of(page, "class=\"chart\""), static_cast<size_t>(num_ranks)) << "one rank exchanges no bytes";
    EXPECT_EQ(count_of(page, "class=\"curve\""), settings.methods.size() * static_cast<size_t>(num_ranks));
    EXPECT_EQ(count_of(page, "a<b>"), 0u);
    EXPECT_THAT(page, HasSubstr("a&lt;b&gt;&amp;&quot;c&quot;"));
    EXPECT_EQ(count_of(page, "http"), 1u + static_cast<size_t>(num_ranks)) << "nothing but the names of XHTML and SVG";
  }
}

TEST(Ladder, RandomPointsAscendAfterTheCleanUpAndNoneThatIsKeptIsBeaten) {
  std::mt19937 random(18);
  std::uniform_int_distribution<int> value(0, 12);
  for (int round = 0; round < 300; ++round) {
    std::vector<MeasuredPoint> points(1);
    points[0].held_out.pairs_run = {100, 0, 0};
    points[0].held_out.num_scored = 1;
    for (int i = 0; i < round % 17; ++i) {
      MeasuredPoint point;
      point.held_out.pairs_run = {100 - 8 * value(random), 0, 0};
      point.held_out.pairs_skipped = {100 - point.held_out.pairs_run[0], 0, 0};
      point.held_out.kl = value(random);
      point.held_out.num_scored = 1;
      points.push_back(point);
    }
    const std::vector<MeasuredPoint> ladder = clean_ladder(points);
    expect_ascending(ladder);
    for (const MeasuredPoint& point : points) {
      const auto covers = [&](const MeasuredPoint& level) {
        return level.held_out.skip_ratio() >= point.held_out.skip_ratio() && level.held_out.kl <= point.held_out.kl;
      };
      EXPECT_TRUE(std::any_of(ladder.begin(), ladder.end(), covers)) << "a point was dropped that nothing beats";
    }
  }
  EXPECT_TRUE(clean_ladder({}).empty());
}

TEST(ThresholdGrid, RunsFromZeroToOverTheHighestScoreInEqualSteps) {
  std::vector<ScoreCount> scores;
  for (int i = 1; i <= 1000; ++i) scores.push_back({i / 1000.0, 2.0});
  const std::vector<float> grid = threshold_grid(ScoreDistribution(scores), 10);
  ASSERT_EQ(grid.size(), 11u);
  EXPECT_EQ(grid[0], 0.0f);
  EXPECT_NEAR(grid[1], 0.01f, 1e-6f);
  EXPECT_GT(grid[10], 1.0f);
  for (size_t i = 2; i < grid.size(); ++i) EXPECT_NEAR(grid[i] / grid[i - 1], grid[2] / grid[1], 1e-5f);
}

TEST(ThresholdGrid, TakesClassesWithOneScoreOrNone) {
  EXPECT_EQ(threshold_grid(ScoreDistribution(), 5), std::vector<float>{0.0f});
  EXPECT_EQ(threshold_grid(ScoreDistribution(std::vector<ScoreCount>{{0.0, 7.0}}), 5), std::vector<float>{0.0f});
  for (const int count : {1, 2, 100}) {
    const std::vector<float> grid = threshold_grid(ScoreDistribution(std::vector<ScoreCount>{{0.25, 3.0}}), count);
    ASSERT_EQ(grid.size(), static_cast<size_t>(count) + 1);
    EXPECT_TRUE(std::is_sorted(grid.begin(), grid.end(), std::less_equal<>())) << "strictly ascending";
    EXPECT_GT(grid.back(), 0.25f);
  }
}

TEST(StepTimeModel, FindsTheCoefficientsOfExactTimes) {
  std::vector<StepTimeSample> samples;
  for (const double pairs : {100.0, 200.0, 400.0}) {
    for (const double bytes : {0.0, 1000.0, 5000.0}) samples.push_back({pairs, bytes, 0.01 + 1e-5 * pairs + 1e-7 * bytes});
  }
  const StepTimeModel model = fit_step_time(samples);
  EXPECT_NEAR(model.base_seconds, 0.01, 1e-12);
  EXPECT_NEAR(model.seconds_per_pair, 1e-5, 1e-12);
  EXPECT_NEAR(model.seconds_per_byte, 1e-7, 1e-14);
  EXPECT_LT(model.relative_error, 1e-9);
}

TEST(StepTimeModel, LeavesOutWhatDoesNotVaryOrWouldCountBackwards) {
  const std::vector<StepTimeSample> one = {{5.0, 7.0, 0.25}};
  EXPECT_EQ(fit_step_time(one).seconds(1000.0, 1000.0), 0.25);
  const std::vector<StepTimeSample> one_rank = {{100.0, 0.0, 1.0}, {200.0, 0.0, 2.0}};
  EXPECT_NEAR(fit_step_time(one_rank).seconds(300.0, 0.0), 3.0, 1e-12);
  const std::vector<StepTimeSample> backwards = {{100.0, 0.0, 2.0}, {200.0, 0.0, 1.0}};
  EXPECT_EQ(fit_step_time(backwards).seconds_per_pair, 0.0);
  EXPECT_NEAR(fit_step_time(backwards).relative_error, 0.5 / 1.5, 1e-12);
  // Two columns in step are one.
  const std::vector<StepTimeSample> together = {{1.0, 10.0, 1.0}, {2.0, 20.0, 2.0}, {3.0, 30.0, 3.0}};
  const StepTimeModel model = fit_step_time(together);
  EXPECT_NEAR(model.seconds(4.0, 40.0), 4.0, 1e-9);
  EXPECT_GE(model.seconds_per_pair, 0.0);
  EXPECT_GE(model.seconds_per_byte, 0.0);
}

TEST(MeasurementCache, GoesOnWithWhatAKilledRunLeft) {
  const FakeModel model(2);
  const std::filesystem::path path = temporary_file("frontier.partial");
  const OperatingPoint first = score_point(model.inputs().equal.alpha, 0.1f, 0.2f);
  const OperatingPoint second = score_point(model.inputs().equal.alpha, 0.1f, 0.3f);
  {
    MeasurementCache cache(path, "settings");
    cache.add(first, DataSplit::kSearch, model.measure(first));
    cache.add(second, DataSplit::kHeldOut, model.measure(second));
  }
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 9);  // the second line is cut short
  MeasurementCache cache(path, "settings");
  EXPECT_EQ(cache.num_taken_over(), 1u);
  EXPECT_EQ(cache.find(first, DataSplit::kSearch), model.measure(first)) << "bit-equal";
  EXPECT_EQ(cache.find(first, DataSplit::kHeldOut), std::nullopt);
  EXPECT_EQ(cache.find(second, DataSplit::kHeldOut), std::nullopt);
  cache.add(second, DataSplit::kHeldOut, model.measure(second));
  EXPECT_EQ(MeasurementCache(path, "settings").num_taken_over(), 2u);
  EXPECT_EQ(MeasurementCache(path, "other settings").num_taken_over(), 0u);
  cache.remove();
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_THROW(MeasurementCache("/nonexistent/x.partial", "settings"), Error);
}

}  // namespace
}  // namespace skipper

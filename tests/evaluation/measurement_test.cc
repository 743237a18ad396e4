// Perplexity and answers through a real engine on the demo model's calibration data.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "evaluation/answers.h"
#include "evaluation/eval_report.h"
#include "evaluation/perplexity.h"
#include "model/model_config.h"
#include "tests/support/demo_engine.h"

namespace skipper {
namespace {

const std::filesystem::path kDemo = std::filesystem::path(SKIPPER_SOURCE_DIR) / "models/demo";

void ignore_progress(size_t, size_t) {}

DemoEngineOptions ranks(int num_ranks) {
  DemoEngineOptions options;
  options.num_ranks = num_ranks;
  options.engine = demo_engine_config();
  return options;
}

TEST(Perplexity, WindowsCarryNothingOverAndPredictAllButTheirFirstToken) {
  with_demo_engine(ranks(2), [](DemoEngine& demo) {
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < 100; ++i) tokens.push_back(100 + i * 7 % 900);
    const PerplexityResult whole = measure_perplexity(tokens, 30, 0, demo.driver, ignore_progress);
    EXPECT_EQ(whole.tokens, 29 * 3 + 9);
    double nll = 0.0;
    for (size_t begin = 0; begin < tokens.size(); begin += 30) {
      const std::vector<int32_t> window(tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                                        tokens.begin() + static_cast<std::ptrdiff_t>(std::min(begin + 30, tokens.size())));
      const PerplexityResult part = measure_perplexity(window, 512, 0, demo.driver, ignore_progress);
      nll += std::log(part.perplexity) * static_cast<double>(part.tokens);
    }
    EXPECT_NEAR(whole.perplexity, std::exp(nll / static_cast<double>(whole.tokens)), 1e-9 * whole.perplexity);
    // A last window of one token predicts nothing.
    tokens.resize(61);
    EXPECT_EQ(measure_perplexity(tokens, 30, 0, demo.driver, ignore_progress).tokens, 58);
    EXPECT_EQ(measure_perplexity({}, 30, 0, demo.driver, ignore_progress).tokens, 0);
  });
}

TEST(Answers, TheDemoModelAnswersMostCalibrationQuestions) {
  const ModelConfig config = load_model_config(kDemo);
  const MultimodalProcessor processor(kDemo, config, ImageLimits());
  EvalData data = load_eval_data(kDemo / "calibration");
  data.vqa.resize(24);
  data.chat.resize(24);
  with_demo_engine(ranks(1), [&](DemoEngine& demo) {
    const AnswerSettings settings{.end_token_ids = config.eos_token_ids};
    EvalReport report;
    report.vqa = measure_answers(data.vqa, settings, processor, demo.driver, ignore_progress);
    report.chat = measure_answers(data.chat, settings, processor, demo.driver, ignore_progress);
    report.traffic = demo.engine.total_traffic();
    int64_t right = 0;
    int64_t total = 0;
    for (const auto* scores : {&report.vqa, &report.chat}) {
      for (const auto& [task, score] : *scores) {
        right += score.right;
        total += score.total;
      }
    }
    EXPECT_EQ(total, 48);
    EXPECT_GE(right, 36);
    const nlohmann::json json = nlohmann::json::parse(to_json(report));
    EXPECT_EQ(json["skip"]["skip_ratio"], 0.0);
    EXPECT_GT(json["skip"]["pairs"]["vision"]["run"], 0);
    EXPECT_FALSE(json["chat"].empty());
  });
}

}  // namespace
}  // namespace skipper

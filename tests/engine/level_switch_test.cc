// The global level changes while requests run, on thread ranks with the demo model: every token keeps the level it first ran at.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "tests/support/demo_engine.h"

namespace skipper {
namespace {

constexpr int32_t kNumTokens = 40;

struct Watched {
  std::vector<int32_t> ids;
  std::vector<SkipUsage> usage;  // after each token
  uint8_t level = 0;
  bool ended = false;
};

class LevelSwitchOnRanks : public testing::TestWithParam<int> {
 protected:
  DemoEngineOptions options() const {
    DemoEngineOptions options;
    options.num_ranks = GetParam();
    options.engine = demo_engine_config();
    options.operating_points = {demo_operating_point(0.02f, 0.02f), demo_operating_point(2.0f, 2.0f)};
    return options;
  }

  // Runs to a fixed length, at the engine's level.
  static GenerationRequest following(const char* question) {
    GenerationRequest request = demo_text_request(question);
    request.min_new_tokens = kNumTokens;  // no stop tokens: they are protected, and level 2 would not change them
    request.max_new_tokens = kNumTokens;
    request.level = UINT8_MAX;
    request.level_choice = LevelChoice::kGlobal;
    return request;
  }

  static std::shared_ptr<Watched> submit(DemoEngine& demo, GenerationRequest request) {
    const auto watched = std::make_shared<Watched>();
    Submission submission;
    submission.request = std::move(request);
    submission.sink = [watched](const TokenEvent& event) {
      if (event.token_id >= 0) watched->ids.push_back(event.token_id);
      watched->usage.push_back(event.usage);
      watched->level = event.level;
      watched->ended = event.finish_reason != FinishReason::kNone;
      return true;
    };
    demo.queue.push(std::move(submission));
    return watched;
  }

  static void run_until(DemoEngine& demo, const Watched& watched, size_t num_tokens) {
    for (int i = 0; i < 2000 && watched.ids.size() < num_tokens && !watched.ended; ++i) demo.engine.step();
    ASSERT_GE(watched.ids.size(), num_tokens);
  }

  // The tokens of `request` when the engine goes from level 0 to 2 and back to 1 while it runs.
  static Watched run_switched(DemoEngine& demo, const GenerationRequest& request) {
    demo.engine.set_level(0);
    const auto watched = submit(demo, request);
    run_until(demo, *watched, 10);
    demo.engine.set_level(2);
    run_until(demo, *watched, 20);
    demo.engine.set_level(1);
    run_until(demo, *watched, kNumTokens);
    return *watched;
  }

  // What run_switched() leaves: the n-th sampled token runs in the step that samples the next.
  static LevelHistory switched_history(const GenerationRequest& request) {
    const auto num_prompt = static_cast<int32_t>(request.prompt_ids.size());
    return LevelHistory({{num_prompt + 9, 0}, {num_prompt + 19, 2}, {num_prompt + kNumTokens - 1, 1}});
  }
};

INSTANTIATE_TEST_SUITE_P(Ranks, LevelSwitchOnRanks, testing::Values(1, 2, 3));

TEST_P(LevelSwitchOnRanks, ASwitchIsEqualToAReplayWithTheSameLevelsInOtherChunks) {
  GenerationRequest request = following("Tell me about the sea.");
  request.sampling = {.temperature = 0.8f, .seed = 9};
  Watched switched;
  with_demo_engine(options(), [&](DemoEngine& demo) { switched = run_switched(demo, request); });
  EXPECT_EQ(switched.level, 1);

  for (const int64_t tokens_per_step : {7, 128}) {
    DemoEngineOptions chunked = options();
    chunked.engine.max_tokens_per_step = tokens_per_step;
    with_demo_engine(chunked, [&](DemoEngine& demo) {
      // From the last token but five on, everything before computed again in a few chunks.
      GenerationRequest replay = request;
      replay.generated_ids.assign(switched.ids.begin(), switched.ids.end() - 5);
      replay.level_history = switched_history(request);
      replay.level = 0;
      replay.level_choice = LevelChoice::kOwn;
      const auto rest = submit(demo, replay);
      run_until(demo, *rest, 5);
      EXPECT_EQ(rest->ids, std::vector<int32_t>(switched.ids.end() - 5, switched.ids.end()));
    });
  }
}

TEST_P(LevelSwitchOnRanks, TheSwitchDoesChangeWhatRuns) {
  with_demo_engine(options(), [&](DemoEngine& demo) {
    const Watched switched = run_switched(demo, following("Tell me about the sea."));
    EXPECT_EQ(switched.usage[9].pairs_skipped, 0);
    EXPECT_GT(switched.usage[10].pairs_skipped, 0);
    // At level 2 a text token loses all its pairs: of 6 layers, 4 of each.
    EXPECT_EQ(switched.usage[19].pairs_run, switched.usage[10].pairs_run);
    EXPECT_GT(switched.usage[39].pairs_run, switched.usage[20].pairs_run);
    GenerationRequest whole = following("Tell me about the sea.");
    whole.level = 0;
    whole.level_choice = LevelChoice::kOwn;
    const auto unskipped = submit(demo, whole);
    run_until(demo, *unskipped, kNumTokens);
    EXPECT_EQ(unskipped->usage.back().pairs_skipped, 0);
    EXPECT_TRUE(std::equal(switched.ids.begin(), switched.ids.begin() + 10, unskipped->ids.begin()));
    EXPECT_NE(switched.ids, unskipped->ids);
  });
}

TEST_P(LevelSwitchOnRanks, PreemptionComputesEveryTokenAgainAtItsLevel) {
  const char* questions[] = {"Tell me about the sea.", "What is 83 + 20?", "Spell the word 'house'.",
                             "Sort these numbers: 5, 3, 9."};
  const auto run_all = [&](const DemoEngineOptions& engine_options, int64_t& pairs) {
    std::vector<std::vector<int32_t>> ids;
    with_demo_engine(engine_options, [&](DemoEngine& demo) {
      std::vector<std::shared_ptr<Watched>> all;
      for (const char* question : questions) {
        GenerationRequest request = following(question);
        // Segments that do not depend on when a request gets its turn.
        request.level_history = LevelHistory({{11, 1}, {static_cast<int32_t>(request.prompt_ids.size()) + 4, 0}});
        all.push_back(submit(demo, request));
        all.push_back(submit(demo, request));
      }
      demo.engine.set_level(2);
      for (int i = 0; i < 5000 && !std::ranges::all_of(all, [](const auto& w) { return w->ended; }); ++i) demo.engine.step();
      for (const auto& watched : all) {
        ids.push_back(watched->ids);
        pairs += watched->usage.back().pairs_run;
        EXPECT_EQ(watched->ids.size(), static_cast<size_t>(kNumTokens));
      }
    });
    return ids;
  };
  int64_t pairs_once = 0;
  int64_t pairs_again = 0;
  const auto expected = run_all(options(), pairs_once);
  DemoEngineOptions scarce = options();
  scarce.engine.kv_block_size = 16;
  scarce.engine.kv_blocks_per_rank = 10;
  scarce.engine.max_model_len = 160;
  EXPECT_EQ(run_all(scarce, pairs_again), expected);
  if (GetParam() == 1) {
    EXPECT_GT(pairs_again, pairs_once) << "nothing was preempted";
  }
}

TEST_P(LevelSwitchOnRanks, ARequestWithItsOwnLevelDoesNotFollow) {
  with_demo_engine(options(), [&](DemoEngine& demo) {
    GenerationRequest own = following("Tell me about the sea.");
    own.level = 0;
    own.level_choice = LevelChoice::kOwn;
    GenerationRequest at_most_one = following("Tell me about the sea.");
    at_most_one.level = 1;
    demo.engine.set_level(2);
    const auto level_0 = submit(demo, own);
    const auto level_1 = submit(demo, at_most_one);
    const auto level_2 = submit(demo, following("Tell me about the sea."));
    run_until(demo, *level_2, kNumTokens);
    run_until(demo, *level_0, kNumTokens);
    run_until(demo, *level_1, kNumTokens);
    EXPECT_EQ(level_0->level, 0);
    EXPECT_EQ(level_0->usage.back().pairs_skipped, 0);
    EXPECT_EQ(level_1->level, 1);
    EXPECT_GT(level_1->usage.back().pairs_skipped, 0);
    EXPECT_EQ(level_2->level, 2);
    EXPECT_GT(level_2->usage.back().pairs_skipped, level_1->usage.back().pairs_skipped);
  });
}

TEST_P(LevelSwitchOnRanks, AnUploadedPointReachesAllRanksWhileRequestsRun) {
  with_demo_engine(options(), [&](DemoEngine& demo) {
    const auto watched = submit(demo, following("Tell me about the sea."));
    run_until(demo, *watched, 5);
    const uint64_t change = demo.engine.append_level(demo_operating_point(1.5f, 1.5f));
    EXPECT_EQ(demo.engine.operating_levels().num_levels(), 3);
    demo.engine.step();
    EXPECT_TRUE(demo.engine.operating_levels().wait_until_in_force(change, std::chrono::milliseconds(0)));
    EXPECT_EQ(demo.engine.operating_levels().num_levels(), 4);
    run_until(demo, *watched, kNumTokens);
    EXPECT_EQ(watched->level, 3);
    EXPECT_EQ(watched->usage[39].pairs_run, watched->usage[6].pairs_run) << "a rank kept running pairs";
  });
}

}  // namespace
}  // namespace skipper

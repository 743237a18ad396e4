// The whole engine on thread ranks with the demo model: what a request gets must not depend on anything but the request.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <set>

#include "tests/support/demo_engine.h"

namespace skipper {
namespace {

std::vector<GenerationRequest> varied_requests() {
  std::vector<GenerationRequest> requests;
  for (const char* question :
       {"What is 83 + 20?", "Spell the word 'house'.", "Sort these numbers: 5, 3, 9.", "Compute 2 x 1."}) {
    requests.push_back(demo_text_request(question));
  }
  requests.push_back(demo_image_request("shapes_000.jpg", "What color is the star?"));
  requests.push_back(demo_image_request("chart_001.jpg", "How many bars are there?"));
  requests.push_back(demo_text_request("Tell me about the sea."));
  requests.back().sampling = {.temperature = 0.8f, .top_p = 0.9f, .top_k = 50, .seed = 1234};
  requests.back().max_new_tokens = 30;
  requests.push_back(demo_text_request("The river ran through the valley and the people came down to it in the morning."));
  requests.back().score_prompt = true;
  return requests;
}

std::vector<DrivenResult> run_all(DemoEngine& demo, const std::vector<GenerationRequest>& requests) {
  return demo.driver.run(requests.size(), [&](size_t i) { return requests[i]; }, [](size_t, size_t) {});
}

// Each request by itself, on one rank, in chunks of the default size.
std::vector<DrivenResult> run_alone(const DemoEngineOptions& options, const std::vector<GenerationRequest>& requests) {
  std::vector<DrivenResult> results;
  with_demo_engine(options, [&](DemoEngine& demo) {
    for (const GenerationRequest& request : requests) results.push_back(run_all(demo, {request}).front());
  });
  return results;
}

void expect_same_bits(const std::vector<DrivenResult>& found, const std::vector<DrivenResult>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].generated_ids, expected[i].generated_ids) << "request " << i;
    EXPECT_EQ(found[i].finish_reason, expected[i].finish_reason) << "request " << i;
    EXPECT_EQ(std::memcmp(&found[i].prompt_nll, &expected[i].prompt_nll, sizeof(double)), 0) << "request " << i;
  }
}

class EngineOnRanks : public testing::TestWithParam<int> {
 protected:
  DemoEngineOptions options() const {
    DemoEngineOptions options;
    options.num_ranks = GetParam();
    options.engine = demo_engine_config();
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(Ranks, EngineOnRanks, testing::Values(1, 2, 3));

TEST_P(EngineOnRanks, ARequestGetsTheSameBitsAloneAndAmongThirtyTwoOthers) {
  const std::vector<GenerationRequest> requests = varied_requests();
  const std::vector<DrivenResult> alone = run_alone(options(), requests);
  // 32 others and the request: with more than one rank the copies also land on every owner.
  std::vector<GenerationRequest> many;
  std::vector<DrivenResult> expected;
  for (size_t i = 0; i < 33; ++i) {
    many.push_back(requests[i % requests.size()]);
    expected.push_back(alone[i % requests.size()]);
  }
  with_demo_engine(options(), [&](DemoEngine& demo) { expect_same_bits(run_all(demo, many), expected); });
}

TEST_P(EngineOnRanks, ChunkSizeDoesNotChangeABit) {
  const std::vector<GenerationRequest> requests = varied_requests();
  const std::vector<DrivenResult> expected = run_alone(options(), requests);
  for (const int64_t tokens_per_step : {16, 37, 64}) {
    DemoEngineOptions chunked = options();
    chunked.engine.max_tokens_per_step = tokens_per_step;
    with_demo_engine(chunked, [&](DemoEngine& demo) { expect_same_bits(run_all(demo, requests), expected); });
  }
}

TEST_P(EngineOnRanks, PreemptionAndReplayDoNotChangeABit) {
  std::vector<GenerationRequest> requests = varied_requests();
  for (GenerationRequest& request : requests) {
    request.stop_token_ids.clear();
    request.max_new_tokens = 40;
  }
  const std::vector<DrivenResult> expected = run_alone(options(), requests);
  DemoEngineOptions scarce = options();
  scarce.engine.kv_block_size = 16;
  scarce.engine.kv_blocks_per_rank = 10;
  scarce.engine.max_model_len = 160;
  with_demo_engine(scarce, [&](DemoEngine& demo) { expect_same_bits(run_all(demo, requests), expected); });
}

TEST_P(EngineOnRanks, ARequestContinuesBitForBitFromItsTokensSoFar) {
  GenerationRequest request = demo_text_request("Tell me about the sea.");
  request.sampling = {.temperature = 0.8f, .seed = 5};
  request.stop_token_ids.clear();
  request.max_new_tokens = 20;
  const std::vector<int32_t> whole = run_alone(options(), {request}).front().generated_ids;
  request.generated_ids.assign(whole.begin(), whole.begin() + 7);
  const std::vector<int32_t> rest = run_alone(options(), {request}).front().generated_ids;
  EXPECT_EQ(rest, std::vector<int32_t>(whole.begin() + 7, whole.end()));
}

TEST_P(EngineOnRanks, TauZeroIsBitEqualToNoSkippingAndMixedLevelsDoNotTouchLevelZero) {
  const std::vector<GenerationRequest> requests = varied_requests();
  const std::vector<DrivenResult> unskipped = run_alone(options(), requests);
  DemoEngineOptions with_levels = options();
  with_levels.operating_points = {demo_operating_point(0.0f, 0.0f), demo_operating_point(0.05f, 0.05f)};
  for (OperatingPoint& point : with_levels.operating_points) point.protect_attention = 0.1f;  // looks at prompts, takes nothing
  std::vector<GenerationRequest> mixed;
  for (const GenerationRequest& request : requests) {
    for (const uint8_t level : {0, 1, 2}) {
      mixed.push_back(request);
      mixed.back().level = level;
    }
  }
  with_demo_engine(with_levels, [&](DemoEngine& demo) {
    const std::vector<DrivenResult> results = run_all(demo, mixed);
    std::vector<DrivenResult> level_0;
    std::vector<DrivenResult> level_1;
    for (size_t i = 0; i < results.size(); i += 3) {
      level_0.push_back(results[i]);
      level_1.push_back(results[i + 1]);
    }
    expect_same_bits(level_0, unskipped);
    expect_same_bits(level_1, unskipped);
    EXPECT_NE(results.back().prompt_nll, results[results.size() - 3].prompt_nll) << "level 2 skipped nothing";
  });
}

TEST_P(EngineOnRanks, TauTwoRunsOnlyProtectedTokensPairs) {
  DemoEngineOptions skip_all = options();
  skip_all.operating_points = {demo_operating_point(2.0f, 2.0f)};
  with_demo_engine(skip_all, [&](DemoEngine& demo) {
    GenerationRequest request = demo_image_request("shapes_000.jpg", "What color is the star?");
    request.level = 1;
    run_all(demo, {request});
    const TrafficCounters& traffic = demo.engine.total_traffic();
    EXPECT_EQ(traffic.pairs_run[static_cast<size_t>(TokenClass::kText)], 0);
    EXPECT_EQ(traffic.pairs_run[static_cast<size_t>(TokenClass::kVision)], 0);
    EXPECT_GT(traffic.pairs_run[static_cast<size_t>(TokenClass::kProtected)], 0);
    EXPECT_EQ(traffic.pairs_skipped[static_cast<size_t>(TokenClass::kProtected)], 0);
  });
}

TEST_P(EngineOnRanks, WithoutProtectedTokensTauTwoSendsNoPayloadByte) {
  DemoEngineOptions skip_all = options();
  skip_all.operating_points = {demo_operating_point(2.0f, 2.0f)};
  with_demo_engine(skip_all, [&](DemoEngine& demo) {
    GenerationRequest request;
    request.prompt_ids = {10, 20, 30, 40, 50, 60, 70};
    request.score_prompt = true;
    request.level = 1;
    const std::vector<GenerationRequest> requests(9, request);
    run_all(demo, requests);
    const TrafficCounters& traffic = demo.engine.total_traffic();
    for (const Hop hop : {Hop::kLocal, Hop::kNode, Hop::kNetwork}) EXPECT_EQ(traffic.total_payload_bytes(hop), 0);
    for (const int64_t pairs : traffic.pairs_run) EXPECT_EQ(pairs, 0);
    EXPECT_GT(traffic.pairs_skipped[static_cast<size_t>(TokenClass::kText)], 0);
  });
}

// The counters against a count from the definition: each (token, other rank) once per direction, a BF16 row of 256 values.
TEST_P(EngineOnRanks, PayloadBytesEqualARecountFromTheRouting) {
  DemoEngineOptions counted = options();
  counted.operating_points = {demo_operating_point(0.03f, 0.06f)};
  std::atomic<int64_t> num_remote_rows{0};
  const int num_ranks = GetParam();
  counted.routing_observer = [&](int rank, const Routing& kept) {
    for (int64_t t = 0; t < kept.expert_ids.dim(0); ++t) {
      std::set<int> destinations;
      for (int64_t j = 0; j < kept.expert_ids.dim(1); ++j) {
        const int32_t expert = kept.expert_ids.row<int32_t>(t)[j];
        // Contiguous blocks: rank r owns the experts [r·32/R, (r+1)·32/R).
        for (int r = 0; expert != kNoExpert && r < num_ranks; ++r) {
          if (r != rank && expert >= r * 32 / num_ranks && expert < (r + 1) * 32 / num_ranks) destinations.insert(r);
        }
      }
      num_remote_rows += static_cast<int64_t>(destinations.size());
    }
  };
  std::vector<GenerationRequest> requests = varied_requests();
  for (size_t i = 0; i < requests.size(); i += 2) requests[i].level = 1;
  with_demo_engine(counted, [&](DemoEngine& demo) {
    run_all(demo, requests);
    EXPECT_EQ(demo.engine.total_traffic().total_payload_bytes(Hop::kNode), num_remote_rows * 2 * 256 * 2);
    EXPECT_EQ(num_remote_rows > 0, num_ranks > 1);
  });
}

TEST_P(EngineOnRanks, ACancelledRequestLeavesWithinAStep) {
  with_demo_engine(options(), [&](DemoEngine& demo) {
    Submission submission;
    submission.request = demo_text_request("Tell me about the sea.");
    submission.request.max_new_tokens = 500;
    submission.request.stop_token_ids.clear();
    submission.cancelled = std::make_shared<std::atomic<bool>>(false);
    const auto cancelled = submission.cancelled;
    FinishReason reason = FinishReason::kNone;
    submission.sink = [&](const TokenEvent& event) {
      reason = event.finish_reason;
      return true;
    };
    demo.queue.push(std::move(submission));
    for (int i = 0; i < 3; ++i) demo.engine.step();
    EXPECT_EQ(reason, FinishReason::kNone);
    cancelled->store(true);
    demo.engine.step();
    EXPECT_EQ(reason, FinishReason::kCancelled);
  });
}

TEST_P(EngineOnRanks, ExpertMemoryStaysWithinTheShareAfterAllExpertsWereUsed) {
  with_demo_engine(options(), [&](DemoEngine& demo) {
    run_all(demo, varied_requests());
    const WeightMemory memory = demo.model.weight_memory();
    // 6 layers, 32 experts, 3 · 96 · 256 BF16 values each; the largest share has one expert more when it does not divide.
    const double bytes_per_expert = 6 * 3 * 96 * 256 * 2.0;
    const double share = bytes_per_expert * ((32 + GetParam() - 1) / GetParam());
    const double expert_pages =
        std::max(0.0, static_cast<double>(memory.resident_mapping_bytes) - static_cast<double>(memory.mapped_bytes));
    EXPECT_LE(expert_pages + static_cast<double>(memory.expert_bytes), 1.1 * share);
  });
}

}  // namespace
}  // namespace skipper

#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "engine/block_allocator.h"
#include "engine/engine_config.h"
#include "engine/generation_request.h"
#include "engine/request_queue.h"

namespace skipper {
namespace {

GenerationRequest full_request() {
  GenerationRequest request;
  request.id = 77;
  request.prompt_ids = {1, 2, 3};
  request.generated_ids = {4};
  request.images.push_back({.grid_t = 1, .grid_h = 2, .grid_w = 2, .pixels = {0.5f, -0.5f}});
  request.sampling = {.temperature = 0.7f, .top_p = 0.9f, .top_k = 5, .seed = 11, .choice = 3};
  request.max_new_tokens = 9;
  request.min_new_tokens = 2;
  request.stop_token_ids = {5, 6};
  request.level = 2;
  request.level_choice = LevelChoice::kGlobal;
  request.level_history = LevelHistory({{2, 1}, {4, 0}});
  request.score_prompt = true;
  request.score_from = 2;
  request.answer_from = 2;
  return request;
}

TEST(GenerationRequest, SurvivesTheWayBetweenRanks) {
  std::vector<std::byte> bytes;
  const GenerationRequest request = full_request();
  encode(request, bytes);
  const GenerationRequest copy = decode_generation_request(bytes);
  EXPECT_EQ(copy.id, 77u);
  EXPECT_EQ(copy.prompt_ids, request.prompt_ids);
  EXPECT_EQ(copy.generated_ids, request.generated_ids);
  ASSERT_EQ(copy.images.size(), 1u);
  EXPECT_EQ(copy.images[0].pixels, request.images[0].pixels);
  EXPECT_EQ(copy.images[0].grid_w, 2);
  EXPECT_EQ(copy.sampling.seed, 11u);
  EXPECT_EQ(copy.sampling.choice, 3);
  EXPECT_EQ(copy.sampling.top_p, 0.9f);
  EXPECT_EQ(copy.stop_token_ids, request.stop_token_ids);
  EXPECT_EQ(copy.level, 2);
  EXPECT_EQ(copy.level_choice, LevelChoice::kGlobal);
  EXPECT_EQ(copy.level_history, request.level_history);
  EXPECT_TRUE(copy.score_prompt);
  EXPECT_EQ(copy.score_from, 2);
  EXPECT_EQ(copy.answer_from, 2);
}

TEST(GenerationRequest, EveryTruncationIsRefused) {
  std::vector<std::byte> bytes;
  encode(full_request(), bytes);
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THROW(decode_generation_request(std::span(bytes).first(length)), CommError) << length;
  }
  bytes.push_back({});
  EXPECT_THROW(decode_generation_request(bytes), CommError);
}

TEST(TokenEvent, SurvivesTheWayBetweenProcesses) {
  const TokenEvent event = {.request_id = 5, .token_id = 6, .num_generated = 7, .finish_reason = FinishReason::kError,
                            .prompt_nll = 1.5, .num_scored = 8, .versions = {{1, 9}, {3, 2}}, .error = "gone"};
  std::vector<std::byte> bytes;
  encode(event, bytes);
  const TokenEvent copy = decode_token_event(bytes);
  EXPECT_EQ(copy.token_id, 6);
  EXPECT_EQ(copy.finish_reason, FinishReason::kError);
  EXPECT_EQ(copy.versions, event.versions);
  EXPECT_EQ(copy.error, "gone");
}

TEST(RequestQueue, RefusesWhenFullUntilSomethingStarts) {
  RequestQueue queue(2);
  EXPECT_EQ(queue.push({}), 1u);
  EXPECT_EQ(queue.push({}), 2u);
  EXPECT_THROW(queue.push({}), ResourceExhausted);
  EXPECT_EQ(queue.take_all().size(), 2u);
  EXPECT_THROW(queue.push({}), ResourceExhausted) << "taken requests still wait until the scheduler says otherwise";
  queue.set_num_waiting(1);
  EXPECT_EQ(queue.push({}), 3u);
  EXPECT_TRUE(queue.full());
}

TEST(RequestQueue, AClosedQueueTakesNothing) {
  RequestQueue queue(2);
  queue.close();
  EXPECT_THROW(queue.push({}), Cancelled);
}

TEST(RequestQueue, WaitEndsWithAPushAWakeOrTheTimeout) {
  RequestQueue queue(2);
  queue.wait(std::chrono::milliseconds(1));
  std::thread other([&] { queue.push({}); });
  queue.wait(std::chrono::hours(1));
  other.join();
  EXPECT_EQ(queue.take_all().size(), 1u);
  queue.wake();
  queue.wait(std::chrono::hours(1));
}

TEST(BlockAllocator, HandsOutEachBlockOnceAndTakesItBack) {
  BlockAllocator allocator(5);
  std::vector<int32_t> a;
  std::vector<int32_t> b;
  allocator.allocate(2, a);
  allocator.allocate(3, b);
  EXPECT_EQ(a, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(b, (std::vector<int32_t>{2, 3, 4}));
  EXPECT_EQ(allocator.num_free(), 0);
  allocator.release(a);
  EXPECT_TRUE(a.empty());
  allocator.allocate(2, a);
  EXPECT_EQ(a, (std::vector<int32_t>{0, 1}));
}

TEST(EngineConfig, NamesTheKeyOfAValueThatCannotWork) {
  EngineConfig config;
  EXPECT_NO_THROW(config.validate());
  config.max_model_len = config.kv_tokens_per_rank() + 1;
  try {
    config.validate();
    FAIL();
  } catch (const InvalidFile& e) {
    EXPECT_NE(std::string(e.what()).find("engine.max_model_len"), std::string::npos);
  }
}

TEST(EngineConfig, RefusesBlocksThatCutAPanelOfTheCache) {
  EngineConfig config;
  for (const int64_t block_size : {0, 8, 24, 8192}) {
    config.kv_block_size = block_size;
    try {
      config.validate();
      FAIL() << block_size;
    } catch (const InvalidFile& e) {
      EXPECT_NE(std::string(e.what()).find("engine.kv_block_size: " + std::to_string(block_size)), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace skipper

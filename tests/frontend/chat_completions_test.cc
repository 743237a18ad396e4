// POST /v1/chat/completions through a real socket, with a fake engine behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "base/error.h"
#include "frontend/openai_responses.h"
#include "server_fixture.h"

namespace skipper {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

class ChatCompletions : public ServerTest {
 protected:
  // Without "[DONE]", which must be the last.
  static std::vector<json> chunks_of(const RawResponse& response) {
    std::vector<std::string> events = response.events();
    EXPECT_FALSE(events.empty());
    if (events.empty()) return {};
    EXPECT_EQ(events.back(), "[DONE]");
    events.pop_back();
    std::vector<json> chunks;
    for (const std::string& event : events) chunks.push_back(json::parse(event));
    return chunks;
  }
};

json token_counts(json usage) {
  usage.erase("skipper");
  return usage;
}

// What the fake engine says of answers with so many tokens each.
json skipper_usage(const std::vector<int64_t>& num_tokens) {
  SkipUsage sum;
  for (const int64_t count : num_tokens) sum += FakeEngine::usage_after(count);
  return {{"level", kFakeLevel},           {"pairs_run", sum.pairs_run},     {"pairs_skipped", sum.pairs_skipped},
          {"pairs_shadow", sum.pairs_shadow}, {"bytes_sent", sum.bytes_sent}, {"bytes_saved", sum.bytes_saved},
          {"mean_bits", 4.5}};
}

TEST_F(ChatCompletions, AnswersAWholeCompletion) {
  start();
  const RawResponse response = ask(chat("hello"));
  ASSERT_EQ(response.status, 200) << response.body;
  const json body = json::parse(response.body);
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["model"], "demo");
  EXPECT_THAT(body["id"].get<std::string>(), ::testing::StartsWith("chatcmpl-"));
  EXPECT_EQ(body["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(body["choices"][0]["message"]["content"], "hello");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  // Five letters and the end token.
  EXPECT_EQ(token_counts(body["usage"]), json({{"prompt_tokens", 5}, {"completion_tokens", 6}, {"total_tokens", 11}}));
}

TEST_F(ChatCompletions, StreamsOneChunkPerTokenWithTheRoleInTheFirst) {
  start();
  const RawResponse response = ask(chat("abc", {{"stream", true}}));
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_THAT(response.headers.at("content-type"), HasSubstr("text/event-stream"));
  EXPECT_EQ(response.headers.at("cache-control"), "no-cache");
  const std::vector<json> chunks = chunks_of(response);
  ASSERT_EQ(chunks.size(), 4u);  // three letters, the end
  EXPECT_EQ(chunks[0]["choices"][0]["delta"], json({{"role", "assistant"}, {"content", "a"}}));
  EXPECT_EQ(chunks[1]["choices"][0]["delta"], json({{"content", "b"}}));
  EXPECT_EQ(chunks[3]["choices"][0]["delta"], json::object());
  EXPECT_EQ(chunks[3]["choices"][0]["finish_reason"], "stop");
  for (const json& chunk : chunks) {
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    EXPECT_EQ(chunk["id"], chunks[0]["id"]);
    EXPECT_FALSE(chunk.contains("usage"));
    EXPECT_EQ(chunk["choices"].size(), 1u);
  }
}

TEST_F(ChatCompletions, SendsUsageInAChunkOfItsOwnOnlyWhenAsked) {
  start();
  const auto chunks = chunks_of(ask(chat("abc", {{"stream", true}, {"stream_options", {{"include_usage", true}}}})));
  ASSERT_EQ(chunks.size(), 5u);
  for (size_t i = 0; i + 1 < chunks.size(); ++i) EXPECT_TRUE(chunks[i].at("usage").is_null());
  EXPECT_EQ(chunks.back()["choices"], json::array());
  EXPECT_EQ(token_counts(chunks.back()["usage"]), json({{"prompt_tokens", 3}, {"completion_tokens", 4}, {"total_tokens", 7}}));
}

TEST_F(ChatCompletions, ReportsWhatSkippingDidInWholeAndStreamedAnswers) {
  start();
  EXPECT_EQ(json::parse(ask(chat("hello")).body)["usage"]["skipper"], skipper_usage({6}));
  const auto chunks = chunks_of(ask(chat("abc", {{"stream", true}, {"stream_options", {{"include_usage", true}}}})));
  EXPECT_EQ(chunks.back()["usage"]["skipper"], skipper_usage({4}));
}

TEST_F(ChatCompletions, SumsWhatSkippingDidOverChoicesAndUpToAStopString) {
  engine_.answer = [](const GenerationRequest& request) { return std::string(request.sampling.choice == 0 ? "ab" : "abcd"); };
  start();
  EXPECT_EQ(json::parse(ask(chat("x", {{"n", 2}})).body)["usage"]["skipper"], skipper_usage({3, 5}));
  const json stopped = json::parse(ask(chat("x", {{"n", 2}, {"stop", "b"}})).body)["usage"]["skipper"];
  // The engine may be some tokens ahead of the stop string.
  EXPECT_GE(stopped["pairs_run"], skipper_usage({2, 2})["pairs_run"]);
  EXPECT_LE(stopped["pairs_run"], skipper_usage({3, 5})["pairs_run"]);
}

TEST_F(ChatCompletions, ListsThePlansThatTokensRanOnAndMeansTheirBits) {
  engine_.answer = [](const GenerationRequest& request) { return std::string(request.sampling.choice == 0 ? "ab" : "abcd"); };
  engine_.switch_at = 2;
  start();
  const json usage = json::parse(ask(chat("x", {{"n", 2}})).body)["usage"]["skipper"];
  const json expected = json::array({{{"policy", "quality"}, {"version", 1}, {"tokens", 4}},
                                     {{"policy", "small"}, {"version", 2}, {"tokens", 4}}});
  EXPECT_EQ(usage["plans"], expected);
  EXPECT_EQ(usage["mean_bits"], 6.0);
}

TEST_F(ChatCompletions, TellsTheEngineTheLowestPolicyOfTheTier) {
  model_.service_tiers = {{"silver", 1}};
  model_.tier_policies = {{"silver", 1}, {"auto", 2}};
  start();
  EXPECT_EQ(ask(chat("x", {{"service_tier", "silver"}})).status, 200);
  EXPECT_EQ(ask(chat("x")).status, 200);
  EXPECT_EQ(ask(chat("x", {{"service_tier", "flex"}})).status, 200);
  const std::vector<PolicyFloor> floors = engine_.floors();
  ASSERT_EQ(floors.size(), 3u);
  EXPECT_EQ(floors[0].lowest, 1);
  EXPECT_EQ(floors[0].tier, "silver");
  EXPECT_EQ(floors[1].lowest, 2);
  EXPECT_EQ(floors[1].tier, "auto");
  EXPECT_EQ(floors[2].lowest, PolicyFloor::kAny);
}

TEST_F(ChatCompletions, HasNoMeanOfBitsWhenNoExpertRan) {
  const json usage = json::parse(completion_json({}, {}, {.prompt_tokens = 1}))["usage"]["skipper"];
  EXPECT_TRUE(usage["mean_bits"].is_null());
  EXPECT_EQ(usage["pairs_run"], 0);
}

TEST_F(ChatCompletions, TellsTheEngineTheLevelThatWasAskedFor) {
  start();
  ask(chat("a"));
  ask(chat("b", {{"skipper", {{"level", 3}}}}));
  ask(chat("c", {{"skipper", {{"full_quality", true}}}}));
  const auto requests = engine_.requests();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].level_choice, LevelChoice::kGlobal);
  EXPECT_EQ(requests[0].level, UINT8_MAX);
  EXPECT_EQ(requests[1].level_choice, LevelChoice::kOwn);
  EXPECT_EQ(requests[1].level, 3);
  EXPECT_EQ(requests[2].level_choice, LevelChoice::kOwn);
  EXPECT_EQ(requests[2].level, 0);
  const RawResponse above = ask(chat("d", {{"skipper", {{"level", 6}}}}));
  EXPECT_EQ(above.status, 400);
  EXPECT_EQ(error_of(above)["param"], "skipper.level");
  EXPECT_THAT(error_of(above)["message"].get<std::string>(), HasSubstr("ceiling of 5"));
}

TEST_F(ChatCompletions, SendsTheRoleEvenWhenTheFirstTokenEndsTheAnswer) {
  engine_.answer = [](const GenerationRequest&) { return std::string(); };
  start();
  const auto chunks = chunks_of(ask(chat("x", {{"stream", true}})));
  ASSERT_EQ(chunks.size(), 2u);
  EXPECT_EQ(chunks[0]["choices"][0]["delta"], json({{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(chunks[1]["choices"][0]["finish_reason"], "stop");
}

TEST_F(ChatCompletions, EndsAtAStopStringAcrossTokensAndCancelsTheEngine) {
  engine_.answer = [](const GenerationRequest&) { return "one STOP " + std::string(4000, 'x'); };
  engine_.step = 1ms;
  start();
  const json whole = json::parse(ask(chat("q", {{"stop", {"never", "STOP"}}})).body);
  EXPECT_EQ(whole["choices"][0]["message"]["content"], "one ");
  EXPECT_EQ(whole["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(whole["usage"]["completion_tokens"], 8);
  std::string text;
  for (const json& chunk : chunks_of(ask(chat("q", {{"stop", "STOP"}, {"stream", true}})))) {
    text += chunk["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(text, "one ");
  EXPECT_TRUE(engine_.eventually([&] { return engine_.num_active() == 0; }));
}

TEST_F(ChatCompletions, EndsAtMaxTokensWithReasonLength) {
  start();
  const json body = json::parse(ask(chat("abcdef", {{"max_tokens", 2}})).body);
  EXPECT_EQ(body["choices"][0]["message"]["content"], "ab");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["usage"]["completion_tokens"], 2);
}

TEST_F(ChatCompletions, IgnoresEndTokensWhenAsked) {
  start();
  const json body = json::parse(ask(chat("ab", {{"max_tokens", 5}, {"ignore_eos", true}})).body);
  EXPECT_EQ(body["choices"][0]["message"]["content"], "ab");  // the end token has no text
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["usage"]["completion_tokens"], 5);
}

TEST_F(ChatCompletions, AsksTheEngineOncePerChoice) {
  engine_.answer = [](const GenerationRequest& request) { return "choice " + std::to_string(request.sampling.choice); };
  start();
  const json body = json::parse(ask(chat("q", {{"n", 3}, {"seed", 11}})).body);
  ASSERT_EQ(body["choices"].size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(body["choices"][i]["index"], i);
    EXPECT_EQ(body["choices"][i]["message"]["content"], "choice " + std::to_string(i));
  }
  EXPECT_EQ(body["usage"]["prompt_tokens"], 1);
  EXPECT_EQ(body["usage"]["completion_tokens"], 27);
  for (const GenerationRequest& request : engine_.requests()) EXPECT_EQ(request.sampling.seed, 11u);
}

TEST_F(ChatCompletions, StreamsSeveralChoicesEachWithItsRoleAndEnd) {
  start();
  int num_roles = 0, num_ends = 0;
  for (const json& chunk : chunks_of(ask(chat("abc", {{"n", 4}, {"stream", true}})))) {
    if (chunk["choices"][0]["delta"].contains("role")) ++num_roles;
    if (!chunk["choices"][0]["finish_reason"].is_null()) ++num_ends;
  }
  EXPECT_EQ(num_roles, 4);
  EXPECT_EQ(num_ends, 4);
}

TEST_F(ChatCompletions, GivesTheEngineWhatTheRequestSays) {
  start();
  ask(chat("hi", {{"temperature", 0.5}, {"top_p", 0.25}, {"top_k", 7}, {"seed", 9}, {"max_tokens", 3}, {"min_tokens", 1},
                  {"stop_token_ids", {65}}}));
  ask(chat("hi"));
  const auto requests = engine_.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].prompt_ids, (std::vector<int32_t>{'h', 'i'}));
  EXPECT_EQ(requests[0].sampling.temperature, 0.5f);
  EXPECT_EQ(requests[0].sampling.top_p, 0.25f);
  EXPECT_EQ(requests[0].sampling.top_k, 7);
  EXPECT_EQ(requests[0].max_new_tokens, 3);
  EXPECT_EQ(requests[0].min_new_tokens, 1);
  EXPECT_EQ(requests[0].stop_token_ids, (std::vector<int32_t>{65, kFakeEnd}));
  EXPECT_EQ(requests[1].sampling.temperature, 0.0f);
  EXPECT_EQ(requests[1].max_new_tokens, 4094);  // what the context has left
  EXPECT_NE(requests[0].sampling.seed, requests[1].sampling.seed);
}

TEST_F(ChatCompletions, RefusesAPromptThatLeavesNoRoomAndSaysTheNumbers) {
  start();
  const RawResponse full = ask(chat(std::string(4096, 'x')));
  EXPECT_EQ(full.status, 400);
  EXPECT_EQ(error_of(full)["code"], "context_length_exceeded");
  EXPECT_EQ(error_of(full)["param"], "messages");
  EXPECT_THAT(error_of(full)["message"].get<std::string>(), HasSubstr("4096"));
  EXPECT_EQ(ask(chat("abcd", {{"max_tokens", 4093}})).status, 400);
  EXPECT_EQ(ask(chat("abcd", {{"max_tokens", 4092}})).status, 200);
  EXPECT_EQ(ask(chat(std::string(4095, 'x'))).status, 200);
}

TEST_F(ChatCompletions, AnswersErrorsInOpenAisShape) {
  start();
  const char* const another_model = R"({"model":"x","messages":[{"role":"user","content":"a"}]})";
  const RawResponse wrong_model = ask(post("/v1/chat/completions", another_model));
  EXPECT_EQ(wrong_model.status, 404);
  EXPECT_EQ(error_of(wrong_model)["code"], "model_not_found");
  const RawResponse bad_field = ask(chat("a", {{"temperature", "hot"}}));
  EXPECT_EQ(bad_field.status, 400);
  EXPECT_EQ(error_of(bad_field)["type"], "invalid_request_error");
  EXPECT_EQ(error_of(bad_field)["param"], "temperature");
  EXPECT_TRUE(error_of(bad_field)["code"].is_null());
  EXPECT_EQ(ask(post("/v1/chat/completions", "{")).status, 400);
}

TEST_F(ChatCompletions, AnswersAFullQueueWith429AndRetryAfter) {
  engine_.queue_capacity = 1;
  engine_.step = 5ms;
  engine_.answer = [](const GenerationRequest&) { return std::string(200, 'x'); };
  start();
  RawClient first(server_->port());
  first.send(chat("a", {{"stream", true}}));
  ASSERT_TRUE(first.read_until("data: "));
  const RawResponse refused = ask(chat("b"));
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(error_of(refused)["type"], "rate_limit_error");
  EXPECT_EQ(refused.headers.count("retry-after"), 1u);
}

TEST_F(ChatCompletions, CancelsTheChoicesThatFittedWhenTheQueueTookOnlySome) {
  engine_.queue_capacity = 2;
  engine_.step = 5ms;
  engine_.answer = [](const GenerationRequest&) { return std::string(2000, 'x'); };
  start();
  EXPECT_EQ(ask(chat("a", {{"n", 3}})).status, 429);
  EXPECT_TRUE(engine_.eventually([&] { return engine_.num_cancelled() == 2; }));
}

TEST_F(ChatCompletions, ShedsLoadBeforeReadingTheRequestWhenTheEngineTakesNone) {
  engine_.status_now = {.phase = EngineStatus::Phase::kStepping, .queue_full = true};
  start();
  EXPECT_EQ(ask(chat("a", {{"temperature", "wrong"}})).status, 429);
}

TEST_F(ChatCompletions, RefusesNewWorkWhileDraining) {
  engine_.status_now.draining = true;
  start();
  const RawResponse refused = ask(chat("a"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.count("retry-after"), 1u);
}

TEST_F(ChatCompletions, AnErrorBeforeTheFirstTokenIsAStatus) {
  engine_.fail_at = 0;
  start();
  for (const bool stream : {false, true}) {
    const RawResponse response = ask(chat("abc", {{"stream", stream}}));
    EXPECT_EQ(response.status, 503);
    EXPECT_EQ(error_of(response)["message"], "rank 2 was lost");
  }
}

TEST_F(ChatCompletions, AnErrorAfterTheFirstTokenIsTheLastEvent) {
  engine_.fail_at = 2;
  engine_.step = 2ms;
  start();
  RawClient client(server_->port());
  client.send(chat("abcdef", {{"stream", true}}));
  const RawResponse response = client.read_response();
  EXPECT_EQ(response.status, 200);
  const auto events = response.events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(json::parse(events.back())["error"]["message"], "rank 2 was lost");
  EXPECT_TRUE(client.closed_within(3s));
}

TEST_F(ChatCompletions, DisconnectWhileStreamingCancels) {
  engine_.answer = [](const GenerationRequest&) { return std::string(4000, 'x'); };
  engine_.step = 2ms;
  start();
  for (const bool hard : {false, true}) {
    const int before = engine_.num_cancelled();
    RawClient client(server_->port());
    client.send(chat("a", {{"stream", true}}));
    ASSERT_TRUE(client.read_until("data: "));
    if (hard) client.reset();
    else client.close();
    const auto closed = std::chrono::steady_clock::now();
    EXPECT_TRUE(engine_.eventually([&] { return engine_.num_cancelled() > before || engine_.num_active() == 0; }));
    EXPECT_LT(std::chrono::steady_clock::now() - closed, 1s);
  }
}

TEST_F(ChatCompletions, DisconnectCancelsBeforeAnythingIsWritten) {
  engine_.answer = [](const GenerationRequest&) { return std::string(4000, 'x'); };
  engine_.step = 2ms;
  start();
  RawClient client(server_->port());
  client.send(chat("a"));
  ASSERT_TRUE(engine_.eventually([&] { return engine_.num_active() == 1; }));
  client.close();
  const auto closed = std::chrono::steady_clock::now();
  EXPECT_TRUE(engine_.eventually([&] { return engine_.num_active() == 0; }));
  EXPECT_EQ(engine_.num_cancelled(), 1);
  EXPECT_LT(std::chrono::steady_clock::now() - closed, 1s);
}

TEST_F(ChatCompletions, AReaderThatTakesNothingIsCutOffAndCancelledWhileOthersAreServed) {
  config_.write_timeout = 300ms;
  model_.max_model_len = 1 << 20;
  engine_.step = 20ms;
  engine_.answer = [](const GenerationRequest& request) {
    return std::string(request.prompt_ids.size() == 1 ? size_t{1} << 19 : size_t{3}, 'x');
  };
  // A kernel may take in some megabytes for a reader that sleeps. Sixteen choices of 4 KB tokens fill that in seconds, and are
  // few enough events for a build that a sanitizer slows.
  processor_.make_decoder = [] {
    return TokenTextDecoder{.push = [](int32_t) { return std::string(4 << 10, 'x'); }, .flush = [] { return std::string(); }};
  };
  start();
  RawClient sleeper(server_->port());
  sleeper.send(chat("a", {{"stream", true}, {"n", 16}}));
  EXPECT_EQ(ask(chat("quick")).status, 200);
  EXPECT_TRUE(engine_.eventually([&] { return engine_.num_cancelled() == 16; }));
  EXPECT_TRUE(sleeper.closed_within(5s));
}

TEST_F(ChatCompletions, ManyStreamsAtOnceAreNotMixedUp) {
  engine_.queue_capacity = 128;
  start();
  std::vector<std::thread> threads;
  std::atomic<int> num_right = 0;
  for (int i = 0; i < 64; ++i) {
    threads.emplace_back([&, i] {
      const std::string question = "question number " + std::to_string(i);
      std::string answer;
      for (const json& chunk : chunks_of(ask(chat(question, {{"stream", true}})))) {
        answer += chunk["choices"][0]["delta"].value("content", "");
      }
      if (answer == question) ++num_right;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_right, 64);
}

TEST_F(ChatCompletions, CountsRequestsTokensAndLatencies) {
  start();
  ask(chat("abc"));
  ask(chat("ab", {{"stream", true}, {"max_tokens", 1}}));
  ask(chat("x", {{"n", 0}}));
  const std::string text = ask(get("/metrics")).body;
  EXPECT_THAT(text, HasSubstr("vllm:prompt_tokens_total{model_name=\"demo\"} 5"));
  EXPECT_THAT(text, HasSubstr("vllm:generation_tokens_total{model_name=\"demo\"} 5"));
  EXPECT_THAT(text, HasSubstr("finished_reason=\"stop\"} 1"));
  EXPECT_THAT(text, HasSubstr("finished_reason=\"length\"} 1"));
  EXPECT_THAT(text, HasSubstr("vllm:time_to_first_token_seconds_count{model_name=\"demo\"} 2"));
  EXPECT_THAT(text, HasSubstr("skipper_http_requests_total{path=\"/v1/chat/completions\",status=\"200\"} 2"));
  EXPECT_THAT(text, HasSubstr("skipper_http_requests_total{path=\"/v1/chat/completions\",status=\"400\"} 1"));
}

}  // namespace
}  // namespace skipper

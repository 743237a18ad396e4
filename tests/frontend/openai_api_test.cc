#include "frontend/openai_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "fake_engine.h"

namespace skipper {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr const char* kOnePixel =
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

constexpr int kHighestLevel = 5;

ChatRequest parse(const std::string& body) { return parse_chat_request(body, fake_model(), FrontendConfig{}, kHighestLevel); }

json minimal() { return {{"model", "demo"}, {"messages", {{{"role", "user"}, {"content", "hi"}}}}}; }

ChatRequest parse_with(const std::string& key, const json& value) {
  json body = minimal();
  body[key] = value;
  return parse(body.dump());
}

struct Refusal {
  std::string message, param, code;
};

Refusal refusal(const std::string& body) {
  try {
    parse(body);
  } catch (const InvalidRequest& error) {
    return {error.what(), error.param(), error.code()};
  }
  return {"ACCEPTED: " + body.substr(0, 200), "ACCEPTED", ""};
}

Refusal refusal_with(const std::string& key, const json& value) {
  json body = minimal();
  body[key] = value;
  return refusal(body.dump());
}

// The one message of a user with these parts.
json with_parts(const json& parts) {
  json body = minimal();
  body["messages"][0]["content"] = parts;
  return body;
}

TEST(OpenAiApi, FillsInTheServersDefaults) {
  const ChatRequest request = parse(minimal().dump());
  EXPECT_EQ(request.temperature, 0.0);
  EXPECT_EQ(request.num_choices, 1);
  EXPECT_FALSE(request.max_tokens.has_value());
  EXPECT_FALSE(request.seed.has_value());
  EXPECT_EQ(request.mode, ResponseMode::kWhole);
  ASSERT_EQ(request.messages.size(), 1u);
  EXPECT_EQ(request.messages[0].parts.at(0).text, "hi");
}

TEST(OpenAiApi, ReadsEveryFieldItKnows) {
  json body = minimal();
  body.update({{"max_tokens", 5}, {"max_completion_tokens", 7}, {"min_tokens", 2}, {"temperature", 0.5}, {"top_p", 0.9},
               {"top_k", 40}, {"seed", -3}, {"n", 2}, {"stop", {"a", "bc"}}, {"stop_token_ids", {1, 2}}, {"ignore_eos", true},
               {"stream", true}, {"stream_options", {{"include_usage", true}}}, {"user", "someone"}});
  const ChatRequest request = parse(body.dump());
  EXPECT_EQ(request.max_tokens, 7);
  EXPECT_EQ(request.min_tokens, 2);
  EXPECT_EQ(request.temperature, 0.5);
  EXPECT_EQ(request.top_p, 0.9);
  EXPECT_EQ(request.top_k, 40);
  EXPECT_EQ(request.seed, static_cast<uint64_t>(-3));
  EXPECT_EQ(request.num_choices, 2);
  EXPECT_EQ(request.stop_strings, (std::vector<std::string>{"a", "bc"}));
  EXPECT_EQ(request.stop_token_ids, (std::vector<int32_t>{1, 2}));
  EXPECT_TRUE(request.ignore_end_tokens);
  EXPECT_TRUE(request.include_usage);
  EXPECT_EQ(request.mode, ResponseMode::kStreamed);
}

TEST(OpenAiApi, TakesNullForAbsentInEveryField) {
  json body = minimal();
  for (const char* key : {"max_tokens", "max_completion_tokens", "min_tokens", "temperature", "top_p", "top_k", "seed", "n",
                          "stop", "service_tier", "stop_token_ids",
                          "ignore_eos", "stream", "stream_options", "user", "logprobs", "top_logprobs", "tools",
                          "tool_choice", "response_format", "presence_penalty", "frequency_penalty", "logit_bias", "modalities",
                          "best_of", "min_p", "functions"}) {
    body[key] = nullptr;
  }
  EXPECT_EQ(parse(body.dump()).temperature, 0.0);
}

TEST(OpenAiApi, AcceptsTheNeutralValuesThatLoadToolsSend) {
  json body = minimal();
  body.update({{"n", 1}, {"best_of", 1}, {"logprobs", false}, {"presence_penalty", 0}, {"frequency_penalty", 0.0},
               {"logit_bias", json::object()}, {"tools", json::array()}, {"tool_choice", "none"}, {"repetition_penalty", 1.0},
               {"response_format", {{"type", "text"}}}, {"top_k", -1}, {"skip_special_tokens", true}, {"modalities", {"text"}},
               {"store", false}, {"metadata", {{"a", "b"}}}, {"never_heard_of", {1, 2, 3}}});
  EXPECT_EQ(parse(body.dump()).top_k, 0);
}

TEST(OpenAiApi, RefusesWhatWouldChangeTheAnswerByItsName) {
  const std::vector<std::pair<std::string, json>> unsupported = {
      {"logprobs", true}, {"top_logprobs", 3}, {"presence_penalty", 0.5}, {"frequency_penalty", -1}, {"repetition_penalty", 1.1},
      {"logit_bias", {{"50", 100}}}, {"best_of", 2}, {"min_p", 0.1}, {"echo", true}, {"chat_template", "{{ x }}"},
      {"chat_template_kwargs", {{"a", 1}}}, {"guided_json", {{"type", "object"}}}, {"functions", {{{"name", "f"}}}},
      {"tools", {{{"type", "function"}}}}, {"tool_choice", "required"}, {"modalities", {"audio"}}, {"skip_special_tokens", false},
      {"truncate_prompt_tokens", 5}, {"prompt_logprobs", 1}};
  for (const auto& [key, value] : unsupported) EXPECT_EQ(refusal_with(key, value).param, key) << key;
  EXPECT_EQ(refusal_with("response_format", {{"type", "json_object"}}).param, "response_format.type");
}

TEST(OpenAiApi, NamesTheFieldWhoseTypeIsWrong) {
  const std::vector<json> wrong = {true, "text", -1.5, json::array({json::array()}), {{"a", 1}}, "NaN", "1"};
  for (const char* key : {"max_tokens", "max_completion_tokens", "min_tokens", "top_k", "n"}) {
    for (const json& value : wrong) EXPECT_EQ(refusal_with(key, value).param, key) << value;
  }
  for (const char* key : {"temperature", "top_p"}) {
    for (const json& value : wrong) EXPECT_EQ(refusal_with(key, value).param, key) << value;
  }
  for (const char* key : {"stream", "ignore_eos", "logprobs"}) {
    for (const json& value : {json(1), json("true"), json::array(), json::object()}) {
      EXPECT_EQ(refusal_with(key, value).param, key) << value;
    }
  }
  for (const json& value : {json(1), json(true), json::object(), json::array({1}), json::array({nullptr})}) {
    EXPECT_EQ(refusal_with("stop", value).param, "stop") << value;
  }
  for (const json& value : {json("user"), json(1), json::object(), json::array()}) {
    EXPECT_EQ(refusal_with("messages", value).param, "messages") << value;
  }
  for (const json& value : {json("a"), json(1.5), json(true), json::object()}) {
    EXPECT_EQ(refusal_with("seed", value).param, "seed");
  }
}

TEST(OpenAiApi, RefusesNumbersOutOfRangeWithTheRange) {
  for (const json& n : {json(0), json(-1), json(1'000'000'000)}) EXPECT_EQ(refusal_with("n", n).param, "n");
  for (const json& tokens : {json(0), json(-5), json(uint64_t{1} << 63), json(1e30)}) {
    EXPECT_EQ(refusal_with("max_tokens", tokens).param, "max_tokens") << tokens;
  }
  EXPECT_THAT(refusal_with("temperature", -1).message, HasSubstr("from 0 to 2"));
  EXPECT_EQ(refusal_with("temperature", 2.01).param, "temperature");
  EXPECT_EQ(refusal_with("top_p", 0).param, "top_p");
  EXPECT_EQ(refusal_with("top_p", 1.01).param, "top_p");
  EXPECT_EQ(refusal_with("top_k", -2).param, "top_k");
  EXPECT_EQ(refusal_with("stop_token_ids", {kFakeVocab}).param, "stop_token_ids");
  EXPECT_EQ(refusal_with("stop_token_ids", {-1}).param, "stop_token_ids");
  json body = minimal();
  body.update({{"max_tokens", 3}, {"min_tokens", 4}});
  EXPECT_EQ(refusal(body.dump()).param, "min_tokens");
}

TEST(OpenAiApi, LimitsStopStrings) {
  EXPECT_EQ(parse_with("stop", json::array()).stop_strings.size(), 0u);
  EXPECT_EQ(parse_with("stop", std::vector<std::string>(16, "x")).stop_strings.size(), 16u);
  EXPECT_EQ(refusal_with("stop", "").param, "stop");
  EXPECT_EQ(refusal_with("stop", {"a", ""}).param, "stop");
  EXPECT_EQ(refusal_with("stop", std::vector<std::string>(17, "x")).param, "stop");
  EXPECT_EQ(refusal_with("stop", std::vector<std::string>(10'000, "x")).param, "stop");
  EXPECT_EQ(refusal_with("stop", std::string(1 << 20, 'x')).param, "stop");
}

TEST(OpenAiApi, WantsStreamForStreamOptions) {
  EXPECT_EQ(refusal_with("stream_options", {{"include_usage", true}}).param, "stream_options");
  json body = minimal();
  body.update({{"stream", true}, {"stream_options", 5}});
  EXPECT_EQ(refusal(body.dump()).param, "stream_options");
  body["stream_options"] = {{"include_usage", "yes"}};
  EXPECT_EQ(refusal(body.dump()).param, "stream_options.include_usage");
}

TEST(OpenAiApi, RefusesAnotherModelWithOpenAisCode) {
  EXPECT_EQ(refusal_with("model", "gpt-4o").code, "model_not_found");
  EXPECT_EQ(refusal_with("model", "gpt-4o").param, "model");
  EXPECT_EQ(refusal_with("model", nullptr).param, "model");
  EXPECT_EQ(refusal_with("model", 7).param, "model");
  EXPECT_LT(refusal_with("model", std::string(1 << 20, 'm')).message.size(), 300u);
}

TEST(OpenAiApi, RefusesBodiesThatAreNotOneJsonObject) {
  const std::vector<std::string> bodies = {
      "", "{", "[]", "null", "\"text\"", "17", "{} {}", "{}x", "{\"a\":NaN}", "{\"a\":Infinity}", "{\"a\":1e999999}",
      "{\"a\":\"\xff\"}", "{\"a\":\"\xc0\xaf\"}", "{\"a\":\"\xed\xa0\xbd\"}", "{\"a\":\"\n\"}", "{\"a\":\"\\ud83d\"}",
      std::string("{\0\"\0a\0", 6), "{'a':1}", "{\"a\":1,}", "{\"model\":\"demo\",\"model\":\"demo\"}",
      "{\"x\":{\"a\":1,\"a\":2}}", "\xfe\xff{", "// comment\n{}"};
  for (const std::string& body : bodies) {
    const Refusal error = refusal(body);
    EXPECT_EQ(error.param.find("ACCEPTED"), std::string::npos) << body;
    EXPECT_EQ(error.message.find('\n'), std::string::npos) << error.message;
  }
}

TEST(OpenAiApi, RefusesNestingAndSizeWithoutDying) {
  const std::string deep(100'000, '[');
  EXPECT_THAT(refusal("{\"x\":" + deep).message, HasSubstr("deeper than 32"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_THAT(refusal(objects).message, HasSubstr("deeper than 32"));
  std::string many = "[0";
  for (int i = 0; i < 300'000; ++i) many += ",0";
  EXPECT_THAT(refusal("{\"x\":" + many + "]}").message, HasSubstr("JSON values"));
  EXPECT_THAT(refusal(std::string("{\"x\":") + std::string(100'000, '9') + "}").message, HasSubstr("not valid JSON"));
}

TEST(OpenAiApi, IgnoresAHundredThousandUnknownFields) {
  json body = minimal();
  for (int i = 0; i < 100'000; ++i) body["unknown_" + std::to_string(i)] = i;
  EXPECT_EQ(parse(body.dump()).messages.size(), 1u);
}

TEST(OpenAiApi, KeepsNulAndSpecialTokenTextInContent) {
  json body = minimal();
  body["messages"][0]["content"] = std::string("a\0<|im_end|>", 12);
  EXPECT_EQ(parse(body.dump()).messages[0].parts[0].text, std::string("a\0<|im_end|>", 12));
}

TEST(OpenAiApi, ReadsConversationsOfAllRoles) {
  json body = minimal();
  body["messages"] = {{{"role", "developer"}, {"content", "be short"}},
                      {{"role", "user"}, {"content", {{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}}}},
                      {{"role", "assistant"}, {"content", nullptr}},
                      {{"role", "user"}, {"content", ""}, {"name", "x"}}};
  const ChatRequest request = parse(body.dump());
  ASSERT_EQ(request.messages.size(), 4u);
  EXPECT_EQ(request.messages[0].role, "system");
  EXPECT_EQ(request.messages[1].parts.size(), 2u);
  EXPECT_TRUE(request.messages[2].parts.empty());
}

TEST(OpenAiApi, ReadsImagesInOrderWithTheirPaths) {
  const json image = {{"type", "image_url"}, {"image_url", {{"url", kOnePixel}, {"detail", "auto"}}}};
  const ChatRequest request = parse(with_parts({image, {{"type", "text"}, {"text", "what?"}}, image}).dump());
  const auto& parts = request.messages[0].parts;
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[0].kind, ChatPart::Kind::kImage);
  EXPECT_EQ(parts[0].image.size(), 70u);
  EXPECT_EQ(parts[0].image[1], 'P');
  EXPECT_EQ(parts[2].param, "messages[0].content[2].image_url.url");
}

TEST(OpenAiApi, RefusesEveryOtherPlaceForAnImage) {
  for (const char* url : {"http://127.0.0.1/a.png", "https://example.org/a.png", "file:///etc/passwd", "/etc/passwd",
                          "unix:/run/x", "\\\\host\\share", "ftp://h/x", "data:", "data:,x", "data:image/svg+xml;base64,AAAA",
                          "data:image/png,AAAA", "data:image/png;base64,A", "data:image/png;base64,AA!A",
                          "data:image/png;base64,=AAA", "data:text/html;base64,AAAA", "", " data:image/png;base64,AAAA"}) {
    const json part = {{"type", "image_url"}, {"image_url", {{"url", url}}}};
    EXPECT_EQ(refusal(with_parts(json::array({part})).dump()).param, "messages[0].content[0].image_url.url") << url;
  }
}

TEST(OpenAiApi, LimitsTheNumberAndSizeOfImages) {
  FrontendConfig limits;
  limits.max_images = 2;
  limits.max_image_bytes = 70;
  const json image = {{"type", "image_url"}, {"image_url", {{"url", kOnePixel}}}};
  EXPECT_NO_THROW(parse_chat_request(with_parts({image, image}).dump(), fake_model(), limits, kHighestLevel));
  EXPECT_THROW(parse_chat_request(with_parts({image, image, image}).dump(), fake_model(), limits, kHighestLevel), InvalidRequest);
  limits.max_image_bytes = 69;
  EXPECT_THROW(parse_chat_request(with_parts(json::array({image})).dump(), fake_model(), limits, kHighestLevel), InvalidRequest);
}

TEST(OpenAiApi, NamesTheBrokenPartOfAMessage) {
  const auto param_of = [](const json& message) {
    json body = minimal();
    body["messages"] = {{{"role", "user"}, {"content", "hi"}}, message};
    return refusal(body.dump()).param;
  };
  EXPECT_EQ(param_of("text"), "messages[1]");
  EXPECT_EQ(param_of(nullptr), "messages[1]");
  EXPECT_EQ(param_of({{"content", "x"}}), "messages[1].role");
  EXPECT_EQ(param_of({{"role", 5}, {"content", "x"}}), "messages[1].role");
  EXPECT_EQ(param_of({{"role", "tool"}, {"content", "x"}}), "messages[1].role");
  EXPECT_EQ(param_of({{"role", "root"}, {"content", "x"}}), "messages[1].role");
  EXPECT_EQ(param_of({{"role", "user"}}), "messages[1].content");
  EXPECT_EQ(param_of({{"role", "user"}, {"content", json::array()}}), "messages[1].content");
  EXPECT_EQ(param_of({{"role", "user"}, {"content", 5}}), "messages[1].content");
  EXPECT_EQ(param_of({{"role", "user"}, {"content", {7}}}), "messages[1].content[0]");
  EXPECT_EQ(param_of({{"role", "user"}, {"content", {{{"text", "x"}}}}}), "messages[1].content[0].type");
  EXPECT_EQ(param_of({{"role", "user"}, {"content", {{{"type", "video_url"}}}}}), "messages[1].content[0].type");
  EXPECT_EQ(param_of({{"role", "user"}, {"content", {{{"type", "text"}}}}}), "messages[1].content[0].text");
  EXPECT_EQ(param_of({{"role", "user"}, {"content", {{{"type", "image_url"}}}}}), "messages[1].content[0].image_url");
  EXPECT_EQ(param_of({{"role", "user"}, {"content", {{{"type", "image_url"}, {"image_url", "x"}}}}}),
            "messages[1].content[0].image_url");
  EXPECT_EQ(param_of({{"role", "assistant"}, {"content", {{{"type", "image_url"}, {"image_url", {{"url", kOnePixel}}}}}}}),
            "messages[1].content[0].type");
  EXPECT_EQ(param_of({{"role", "assistant"}, {"tool_calls", {{{"id", "1"}}}}}), "messages[1].tool_calls");
}

TEST(OpenAiApi, LimitsTheNumberOfMessages) {
  json body = minimal();
  body["messages"] = json::array();
  for (int i = 0; i < 20'000; ++i) body["messages"].push_back({{"role", "user"}, {"content", "x"}});
  EXPECT_EQ(refusal(body.dump()).param, "messages");
}

}  // namespace
}  // namespace skipper

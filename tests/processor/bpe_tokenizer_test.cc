#include "processor/bpe_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/error.h"
#include "processor/incremental_detokenizer.h"
#include "tests/processor/tokenizer_fixture.h"

namespace skipper {
namespace {

using std::chrono::steady_clock;

class EveryTokenizer : public testing::TestWithParam<TokenizerFixture> {
 protected:
  BpeTokenizer tokenizer_{GetParam().model_directory()};
  nlohmann::json cases_ = GetParam().cases();
};

INSTANTIATE_TEST_SUITE_P(Fixtures, EveryTokenizer, testing::ValuesIn(kTokenizerFixtures),
                         [](const auto& info) { return std::string(info.param.name); });

std::string text_of(const BpeTokenizer& tokenizer, const std::vector<int32_t>& ids, SpecialTokenText special_tokens) {
  IncrementalDetokenizer detokenizer(tokenizer, special_tokens);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.push(id);
  return text + detokenizer.flush();
}

TEST_P(EveryTokenizer, GivesTheIdsOfHuggingFaceForEveryText) {
  ASSERT_GE(cases_["encode"].size(), 500u);
  for (const auto& test_case : cases_["encode"]) {
    const std::string text = test_case["text"];
    EXPECT_EQ(tokenizer_.encode(text, SpecialTokens::kParse), test_case["ids"].get<std::vector<int32_t>>())
        << test_case["text"];
  }
}

TEST_P(EveryTokenizer, ReadsSpecialTokensAsPlainTextWhenAsked) {
  size_t num_different = 0;
  for (const auto& test_case : cases_["encode"]) {
    const bool differs = test_case.contains("ids_as_text");
    num_different += differs ? 1 : 0;
    const auto expected = test_case[differs ? "ids_as_text" : "ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer_.encode(test_case["text"].get<std::string>(), SpecialTokens::kAsText), expected)
        << test_case["text"];
  }
  EXPECT_GT(num_different, 0u);
}

TEST_P(EveryTokenizer, DecodesAsHuggingFaceDoesAlsoBrokenCharacters) {
  for (const auto& test_case : cases_["decode"]) {
    const auto ids = test_case["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(text_of(tokenizer_, ids, SpecialTokenText::kKeep), test_case["text"].get<std::string>()) << test_case;
    EXPECT_EQ(text_of(tokenizer_, ids, SpecialTokenText::kSkip), test_case["text_without_special"].get<std::string>())
        << test_case;
  }
}

TEST_P(EveryTokenizer, KnowsTheSpecialTokens) {
  const auto expected = cases_["special_ids"].get<std::vector<int32_t>>();
  EXPECT_EQ(tokenizer_.special_ids(), expected);
  for (int32_t id = -1; id <= tokenizer_.vocab_size(); ++id) {
    EXPECT_EQ(tokenizer_.is_special(id), std::find(expected.begin(), expected.end(), id) != expected.end()) << id;
  }
}

class DemoTokenizer : public testing::Test {
 protected:
  // Encodes within the second that untrusted text may take; sanitizers make everything slower.
  std::vector<int32_t> encode_in_time(const std::string& text) const {
    const auto begin = steady_clock::now();
    std::vector<int32_t> ids = tokenizer_.encode(text, SpecialTokens::kParse);
    const std::chrono::duration<double> elapsed = steady_clock::now() - begin;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    EXPECT_LT(elapsed.count(), 30.0);
#else
    EXPECT_LT(elapsed.count(), 1.0);
#endif
    return ids;
  }

  BpeTokenizer tokenizer_{kTokenizerFixtures[0].model_directory()};
};

std::string repeat(const std::string& unit, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += unit;
  return text;
}

TEST_F(DemoTokenizer, EncodesHostileTextInTimeAndGivesItBack) {
  const std::string family = "\U0001F468\u200D\U0001F469\u200D\U0001F467\u200D";
  for (const std::string& unit : {std::string("a"), std::string(" "), std::string("9"), family, std::string("\n"),
                                  std::string("!"), std::string("ab"), std::string("\t"), std::string("\u6F22")}) {
    const std::string text = repeat(unit, 200'000);
    EXPECT_EQ(tokenizer_.decode(encode_in_time(text)), text) << unit;
    EXPECT_EQ(tokenizer_.decode(encode_in_time(text + "x")), text + "x") << unit;
  }
}

TEST_F(DemoTokenizer, OrdersManyCombiningMarksInTime) {
  // 100,000 marks above, then 100,000 below: composed form has those below (class 220) first.
  const std::string marks_above = repeat("\u0301", 100'000);
  const std::string marks_below = repeat("\u0323", 100'000);
  EXPECT_EQ(tokenizer_.decode(encode_in_time("q" + marks_above + marks_below)), "q" + marks_below + marks_above);
  EXPECT_EQ(tokenizer_.decode(encode_in_time(repeat("\u0301\u0323", 100'000))), marks_below + marks_above);
}

TEST_F(DemoTokenizer, EncodesManySpecialTokensInTime) {
  EXPECT_EQ(encode_in_time(repeat("<|im_end|>", 50'000)), std::vector<int32_t>(50'000, 4084));
  const std::string nearly = repeat("<|im_end", 50'000);
  EXPECT_EQ(tokenizer_.decode(encode_in_time(nearly)), nearly);
}

TEST_F(DemoTokenizer, NamesTheByteWhereTextIsNotUtf8) {
  for (const auto& [text, offset] : std::vector<std::pair<std::string, std::string>>{
           {"ab\xFFz", "2"}, {"\xC3", "0"}, {"x\xE2\x82", "1"}, {"\xED\xA0\x80", "0"},
           {"\xC0\xAF", "0"}, {"\xF4\x90\x80\x80", "0"}}) {
    try {
      tokenizer_.encode(text, SpecialTokens::kParse);
      FAIL() << "accepted " << testing::PrintToString(text);
    } catch (const InvalidRequest& e) {
      EXPECT_THAT(e.what(), testing::HasSubstr("byte offset " + offset));
    }
  }
}

TEST_F(DemoTokenizer, FindsTokensByTheirText) {
  EXPECT_EQ(tokenizer_.token_id("<|im_end|>"), 4084);
  EXPECT_EQ(tokenizer_.token_id(" the"), 262);
  EXPECT_EQ(tokenizer_.token_bytes(262), " the");
  EXPECT_EQ(tokenizer_.token_id("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer_.token_id(""), std::nullopt);
}

TEST_F(DemoTokenizer, HasNoBytesForIdsOutsideTheVocabulary) {
  EXPECT_EQ(tokenizer_.vocab_size(), 4096);
  EXPECT_EQ(tokenizer_.token_bytes(4096), "");
  EXPECT_EQ(tokenizer_.token_bytes(-1), "");
  EXPECT_EQ(tokenizer_.decode(std::vector<int32_t>{262, 5000, 262}), " the the");
}

TEST_F(DemoTokenizer, EncodesTheSameFromSeveralThreads) {
  const std::string text = repeat("The caf\u00e9's <|im_end|> 123 \u6F22\u5B57\n", 200);
  const std::vector<int32_t> expected = tokenizer_.encode(text, SpecialTokens::kParse);
  std::vector<std::vector<int32_t>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] { result = tokenizer_.encode(text, SpecialTokens::kParse); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

}  // namespace
}  // namespace skipper

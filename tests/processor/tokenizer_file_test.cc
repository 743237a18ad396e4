// What a tokenizer.json may hold, and what is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "processor/bpe_tokenizer.h"
#include "tests/processor/tokenizer_fixture.h"

namespace skipper {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class TokenizerFile : public testing::Test {
 protected:
  TokenizerFile() {
    directory_ = std::filesystem::path(testing::TempDir()) /
                 ("tokenizer_file_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::create_directories(directory_);
    std::ifstream file(kTokenizerFixtures[1].model_directory() / "tokenizer.json");
    tokenizer_ = json::parse(file);
  }
  ~TokenizerFile() override { std::filesystem::remove_all(directory_); }

  void write(const char* name, const json& contents) { std::ofstream(directory_ / name) << contents; }

  BpeTokenizer load() {
    write("tokenizer.json", tokenizer_);
    return BpeTokenizer(directory_);
  }

  std::string refusal() {
    try {
      load();
    } catch (const InvalidFile& e) {
      return e.what();
    }
    return "accepted";
  }

  // Loads with `value` at `pointer`, then restores the file.
  std::string refusal_of(const std::string& pointer, const json& value) {
    const json original = tokenizer_;
    tokenizer_[json::json_pointer(pointer)] = value;
    const std::string message = refusal();
    tokenizer_ = original;
    return message;
  }

  std::filesystem::path directory_;
  json tokenizer_;
};

TEST_F(TokenizerFile, IsNamedWhenMissingOrNotJson) {
  EXPECT_THROW(BpeTokenizer(directory_ / "nowhere"), InvalidFile);
  std::ofstream(directory_ / "tokenizer.json") << "{\"version\": ";
  EXPECT_THROW(BpeTokenizer{directory_}, InvalidFile);
}

TEST_F(TokenizerFile, NamesKeyAndValueOfWhatIsNotSupported) {
  const std::vector<std::tuple<std::string, json, std::string>> refused = {
      {"/version", "2.0", "version: \"2.0\""},
      {"/normalizer", {{"type", "Lowercase"}}, "normalizer: type: \"Lowercase\""},
      {"/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "NFKC"}}}}}, "normalizers[0]: type: \"NFKC\""},
      {"/pre_tokenizer", {{"type", "Whitespace"}}, "pre_tokenizer: type: \"Whitespace\""},
      {"/pre_tokenizer", nullptr, "pre_tokenizer: has no ByteLevel step"},
      {"/pre_tokenizer/add_prefix_space", true, "add_prefix_space: true"},
      {"/post_processor", {{"type", "TemplateProcessing"}}, "post_processor: type: \"TemplateProcessing\""},
      {"/decoder", {{"type", "Metaspace"}}, "decoder: type: \"Metaspace\""},
      {"/model/type", "Unigram", "model: type: \"Unigram\""},
      {"/model/dropout", 0.1, "model: dropout: 0.1"},
      {"/model/continuing_subword_prefix", "##", "continuing_subword_prefix: \"##\""},
      {"/model/end_of_word_suffix", "</w>", "end_of_word_suffix: \"</w>\""},
      {"/model/byte_fallback", true, "byte_fallback: true"},
      {"/model/new_feature", 1, "new_feature: unknown key"},
      {"/new_section", 1, "new_section: unknown key"},
  };
  for (const auto& [pointer, value, message] : refused) EXPECT_THAT(refusal_of(pointer, value), HasSubstr(message));
}

TEST_F(TokenizerFile, NamesBrokenVocabulariesAndMerges) {
  EXPECT_THAT(refusal_of("/model/vocab/!", -1), HasSubstr("vocab: \"!\" has the id -1"));
  EXPECT_THAT(refusal_of("/model/vocab/!", 1e18), HasSubstr("vocab: \"!\" has the id"));
  EXPECT_THAT(refusal_of("/model/vocab/!", "x"), HasSubstr("vocab: \"!\" has the id \"x\""));
  EXPECT_THAT(refusal_of("/model/vocab/!", 1), HasSubstr("two tokens have the id 1"));
  EXPECT_THAT(refusal_of("/model/vocab", json::object()), HasSubstr("vocab: has no token for byte 0"));
  EXPECT_THAT(refusal_of("/model/vocab", 3), HasSubstr("vocab"));
  EXPECT_THAT(refusal_of("/model/merges", "x"), HasSubstr("merges: expected a list"));
  EXPECT_THAT(refusal_of("/model/merges/0", "a b c"), HasSubstr("merges: \"a b c\" is not a pair"));
  EXPECT_THAT(refusal_of("/model/merges/0", {"a"}), HasSubstr("is not a pair"));
  EXPECT_THAT(refusal_of("/model/merges/0", "a nowhere"), HasSubstr("merges: \"nowhere\" is not in the vocabulary"));
  EXPECT_THAT(refusal_of("/model/merges/0", "! \""), HasSubstr("is not in the vocabulary"));
}

TEST_F(TokenizerFile, NamesBrokenAddedTokens) {
  EXPECT_THAT(refusal_of("/added_tokens/0/id", 5), HasSubstr("of another token in model.vocab"));
  EXPECT_THAT(refusal_of("/added_tokens/0/content", ""), HasSubstr("added_tokens[0]: content"));
  EXPECT_THAT(refusal_of("/added_tokens/1/id", tokenizer_["added_tokens"][0]["id"]), HasSubstr("is used twice"));
  EXPECT_THAT(refusal_of("/added_tokens/0/special", "yes"), HasSubstr("special: expected true or false"));
  EXPECT_THAT(refusal_of("/added_tokens", 7), HasSubstr("added_tokens: expected a list"));
}

TEST_F(TokenizerFile, NamesPatternsThatPcre2WouldReadDifferently) {
  const auto refusal_of_pattern = [&](const std::string& pattern) {
    const json split = {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
    const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    return refusal_of("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split, byte_level}}});
  };
  EXPECT_THAT(refusal_of_pattern("a("), HasSubstr("\"a(\": "));
  EXPECT_THAT(refusal_of_pattern("\\h+"), HasSubstr("\\h at offset 0 is not supported"));
  EXPECT_THAT(refusal_of_pattern("[a-z&&[^b]]"), HasSubstr("an intersection of classes at offset 4"));
  EXPECT_THAT(refusal_of_pattern("[a[b]]"), HasSubstr("a class within a class"));
  EXPECT_THAT(refusal_of_pattern("\\p{N}{1,3}+"), HasSubstr("a repeat of a repeat"));
  EXPECT_THAT(refusal_of_pattern("[\\W]"), HasSubstr("\\W"));
  EXPECT_THAT(refusal_of_pattern("a\\"), HasSubstr("a backslash at the end"));
  EXPECT_EQ(refusal_of_pattern("\\s+|[^\\s\\d]+"), "accepted");
}

TEST_F(TokenizerFile, RefusesSplitsItCannotDo) {
  const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const json removed = {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Removed"}, {"invert", false}};
  const json inverted = {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Isolated"}, {"invert", true}};
  const json literal = {{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "Isolated"}, {"invert", false}};
  const auto refusal_of_steps = [&](const json& steps) {
    return refusal_of("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", steps}});
  };
  EXPECT_THAT(refusal_of_steps({removed, byte_level}), HasSubstr("behavior: \"Removed\""));
  EXPECT_THAT(refusal_of_steps({inverted, byte_level}), HasSubstr("invert: true"));
  EXPECT_THAT(refusal_of_steps({literal, byte_level}), HasSubstr("Regex"));
  EXPECT_THAT(refusal_of_steps({byte_level, byte_level}), HasSubstr("after ByteLevel is not supported"));
  EXPECT_THAT(refusal_of_steps(json::array()), HasSubstr("has no ByteLevel step"));
}

TEST_F(TokenizerFile, StopsAtPatternsThatNeedTooManySteps) {
  const json pattern = {{"Regex", "(a|aa|aaa)+b"}};
  const json split = {{"type", "Split"}, {"pattern", pattern}, {"behavior", "Isolated"}, {"invert", false}};
  const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  tokenizer_["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {split, byte_level}}};
  const BpeTokenizer tokenizer = load();
  try {
    tokenizer.encode(std::string(200, 'a') + "cb", SpecialTokens::kParse);
    FAIL() << "accepted";
  } catch (const InvalidRequest& e) {
    EXPECT_THAT(e.what(), HasSubstr("too complex to tokenize"));
  }
}

TEST_F(TokenizerFile, TakesFlagsAndTokensFromTokenizerConfig) {
  const auto id_of = [&](const std::string& content) {
    for (const json& token : tokenizer_["added_tokens"]) {
      if (token["content"] == content) return token["id"].get<int32_t>();
    }
    return -1;
  };
  const int32_t lstrip = id_of("<lstrip>");
  write("tokenizer_config.json",
        {{"added_tokens_decoder",
          {{std::to_string(lstrip), {{"content", "<lstrip>"}, {"special", true}, {"lstrip", false}}},
           {"5000", {{"content", "<new>"}, {"special", false}, {"normalized", false}}}}},
         {"eos_token", "<rstrip>"},
         {"pad_token", {{"content", "<a>"}}},
         {"additional_special_tokens", {"<ab"}}});
  const BpeTokenizer tokenizer = load();
  for (const char* content : {"<lstrip>", "<rstrip>", "<a>", "<ab", "<special>"}) {
    EXPECT_TRUE(tokenizer.is_special(id_of(content))) << content;
  }
  EXPECT_FALSE(tokenizer.is_special(5000));
  EXPECT_EQ(tokenizer.encode(" <lstrip><new>", SpecialTokens::kParse),
            (std::vector<int32_t>{tokenizer.token_id(" ").value(), lstrip, 5000}));
}

TEST_F(TokenizerFile, NamesContradictionsOfTokenizerConfig) {
  const json token = tokenizer_["added_tokens"][0];
  write("tokenizer_config.json", {{"added_tokens_decoder", {{token["id"].dump(), {{"content", "<other>"}}}}}});
  EXPECT_THAT(refusal(), HasSubstr("\"<other>\", but tokenizer.json calls this token"));
  write("tokenizer_config.json", {{"added_tokens_decoder", {{"12x", {{"content", "<other>"}}}}}});
  EXPECT_THAT(refusal(), HasSubstr("\"12x\" is not a token id"));
  write("tokenizer_config.json", {{"added_tokens_decoder", {1}}});
  EXPECT_THAT(refusal(), HasSubstr("added_tokens_decoder"));
}

}  // namespace
}  // namespace skipper

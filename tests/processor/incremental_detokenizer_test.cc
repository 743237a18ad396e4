#include "processor/incremental_detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "processor/utf8.h"
#include "tests/processor/tokenizer_fixture.h"

namespace skipper {
namespace {

class DetokenizerTest : public testing::Test {
 protected:
  int32_t byte_token(int byte) const { return tokenizer_.token_id(std::string(1, static_cast<char>(byte))).value(); }

  BpeTokenizer tokenizer_{kTokenizerFixtures[0].model_directory()};
};

// All text the bytes hold, by the definition: a character where one is complete, else U+FFFD for the longest beginning of
// some character, or for one byte. Tries every length against a list of what a character may look like.
std::string replace_broken_characters(const std::string& bytes) {
  const auto in = [&](size_t i, int low, int high) {
    const int byte = static_cast<unsigned char>(bytes[i]);
    return low <= byte && byte <= high;
  };
  struct Shape {
    int first_low, first_high, second_low, second_high;
    size_t length;
  };
  const std::vector<Shape> shapes = {
      {0x00, 0x7F, 0, 0, 1},       {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3}, {0xE1, 0xEC, 0x80, 0xBF, 3},
      {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4},
      {0xF4, 0xF4, 0x80, 0x8F, 4}};
  std::string text;
  for (size_t begin = 0; begin < bytes.size();) {
    size_t fitting = 0;
    bool complete = false;
    for (const Shape& shape : shapes) {
      if (!in(begin, shape.first_low, shape.first_high)) continue;
      fitting = 1;
      while (fitting < shape.length && begin + fitting < bytes.size() &&
             in(begin + fitting, fitting == 1 ? shape.second_low : 0x80, fitting == 1 ? shape.second_high : 0xBF)) {
        ++fitting;
      }
      complete = fitting == shape.length;
    }
    text += complete ? bytes.substr(begin, fitting) : "\uFFFD";
    begin += std::max<size_t>(fitting, 1);
  }
  return text;
}

TEST_F(DetokenizerTest, HoldsBackACharacterUntilItIsComplete) {
  IncrementalDetokenizer detokenizer(tokenizer_, SpecialTokenText::kKeep);
  EXPECT_EQ(detokenizer.push(byte_token(0xF0)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0x9F)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0x99)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0x82)), "\U0001F642");
  EXPECT_EQ(detokenizer.flush(), "");
}

TEST_F(DetokenizerTest, ReplacesABrokenCharacterAsSoonAsItIsKnownToBeBroken) {
  IncrementalDetokenizer detokenizer(tokenizer_, SpecialTokenText::kKeep);
  EXPECT_EQ(detokenizer.push(byte_token(0x80)), "\uFFFD");
  EXPECT_EQ(detokenizer.push(byte_token(0xE2)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0x82)), "");
  EXPECT_EQ(detokenizer.push(byte_token('x')), "\uFFFDx");
}

TEST_F(DetokenizerTest, FlushReplacesWhatIsCutOffAndStartsAfresh) {
  IncrementalDetokenizer detokenizer(tokenizer_, SpecialTokenText::kKeep);
  EXPECT_EQ(detokenizer.flush(), "");
  EXPECT_EQ(detokenizer.push(byte_token(0xE2)), "");
  EXPECT_EQ(detokenizer.flush(), "\uFFFD");
  EXPECT_EQ(detokenizer.push(byte_token(0x82)), "\uFFFD");
  EXPECT_EQ(detokenizer.flush(), "");
}

TEST_F(DetokenizerTest, SkipsSpecialTokensAndIdsOutsideTheVocabularyWhenAsked) {
  const int32_t special = tokenizer_.token_id("<|im_end|>").value();
  IncrementalDetokenizer keep(tokenizer_, SpecialTokenText::kKeep);
  EXPECT_EQ(keep.push(special), "<|im_end|>");
  IncrementalDetokenizer skip(tokenizer_, SpecialTokenText::kSkip);
  EXPECT_EQ(skip.push(byte_token(0xC3)), "");
  EXPECT_EQ(skip.push(special), "");
  EXPECT_EQ(skip.push(1'000'000), "");
  EXPECT_EQ(skip.push(byte_token(0xA9)), "\u00E9");
}

TEST_F(DetokenizerTest, GivesInPiecesWhatDecodingAtOnceGives) {
  std::mt19937 random(7);
  for (int round = 0; round < 5000; ++round) {
    // Odd rounds take single bytes from 0x80 on, where characters break most.
    std::uniform_int_distribution<int32_t> any_token(0, tokenizer_.vocab_size() - 1);
    std::uniform_int_distribution<int> high_byte(0x80, 0xFF);
    std::vector<int32_t> ids(std::uniform_int_distribution<size_t>(0, 13)(random));
    for (int32_t& id : ids) id = round % 2 == 0 ? any_token(random) : byte_token(high_byte(random));
    IncrementalDetokenizer detokenizer(tokenizer_, SpecialTokenText::kKeep);
    std::string text;
    for (const int32_t id : ids) {
      const std::string piece = detokenizer.push(id);
      EXPECT_EQ(find_invalid_utf8(piece), std::nullopt);
      text += piece;
    }
    text += detokenizer.flush();
    ASSERT_EQ(text, replace_broken_characters(tokenizer_.decode(ids))) << testing::PrintToString(ids);
  }
}

}  // namespace
}  // namespace skipper

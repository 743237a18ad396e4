#include "frontend/choice_text.h"

#include <gtest/gtest.h>

#include "fake_engine.h"

namespace skipper {
namespace {

TokenEvent token(int32_t id, FinishReason reason = FinishReason::kNone) {
  TokenEvent event;
  event.token_id = id;
  event.finish_reason = reason;
  return event;
}

// Feeds the bytes of `text` one by one; the last one ends with `reason`.
ChoiceDelta feed(ChoiceText& choice, const std::string& text, FinishReason reason = FinishReason::kNone) {
  ChoiceDelta all;
  for (size_t i = 0; i < text.size() && all.finish_reason == FinishReason::kNone; ++i) {
    const bool last = i + 1 == text.size();
    const ChoiceDelta delta = choice.add(token(static_cast<uint8_t>(text[i]), last ? reason : FinishReason::kNone));
    all.text += delta.text;
    all.finish_reason = delta.finish_reason;
  }
  return all;
}

TEST(ChoiceText, PassesTextOnWhenNothingStopsIt) {
  ChoiceText choice(fake_processor().make_decoder(), {});
  EXPECT_EQ(choice.add(token('h')).text, "h");
  EXPECT_EQ(choice.add(token('i')).text, "i");
  const ChoiceDelta end = choice.add(token(kFakeEnd, FinishReason::kStop));
  EXPECT_EQ(end.text, "");
  EXPECT_EQ(end.finish_reason, FinishReason::kStop);
}

TEST(ChoiceText, EndsBeforeAStopStringThatSpansTokens) {
  ChoiceText choice(fake_processor().make_decoder(), {"STOP"});
  const ChoiceDelta delta = feed(choice, "abcSTOPdef");
  EXPECT_EQ(delta.text, "abc");
  EXPECT_EQ(delta.finish_reason, FinishReason::kStop);
}

TEST(ChoiceText, HoldsBackWhatMayBecomeAStopStringAndGivesItOutWhenItDoesNot) {
  ChoiceText choice(fake_processor().make_decoder(), {"STOP"});
  EXPECT_EQ(feed(choice, "aSTO").text, "a");
  EXPECT_EQ(feed(choice, "x").text, "STOx");
}

TEST(ChoiceText, GivesOutHeldTextWhenTheAnswerEnds) {
  ChoiceText stopped(fake_processor().make_decoder(), {"STOP"});
  feed(stopped, "aST");
  EXPECT_EQ(stopped.add(token(kFakeEnd, FinishReason::kStop)).text, "ST");
  ChoiceText cut(fake_processor().make_decoder(), {"STOP"});
  const ChoiceDelta delta = feed(cut, "aSTO", FinishReason::kLength);
  EXPECT_EQ(delta.text, "aSTO");
  EXPECT_EQ(delta.finish_reason, FinishReason::kLength);
}

TEST(ChoiceText, StopStringOnTheLastAllowedTokenCountsAsStop) {
  ChoiceText choice(fake_processor().make_decoder(), {"!"});
  const ChoiceDelta delta = feed(choice, "ab!", FinishReason::kLength);
  EXPECT_EQ(delta.text, "ab");
  EXPECT_EQ(delta.finish_reason, FinishReason::kStop);
}

TEST(ChoiceText, GivesOutWhatTheDecoderHeldBack) {
  const TokenTextDecoder decoder{.push = [](int32_t) { return std::string(); },
                                 .flush = [] { return std::string("\xEF\xBF\xBD"); }};
  ChoiceText choice(decoder, {});
  EXPECT_EQ(choice.add(token(0xE2)).text, "");
  EXPECT_EQ(choice.add(token(0x82, FinishReason::kLength)).text, "\xEF\xBF\xBD");
}

}  // namespace
}  // namespace skipper

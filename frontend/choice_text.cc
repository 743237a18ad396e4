#include "frontend/choice_text.h"

#include <utility>

namespace skipper {

ChoiceText::ChoiceText(TokenTextDecoder decoder, std::vector<std::string> stop_strings)
    : decoder_(std::move(decoder)), stop_matcher_(std::move(stop_strings)) {}

ChoiceDelta ChoiceText::add(const TokenEvent& event) {
  // A token that ends the answer is reported but not part of its text.
  if (event.finish_reason == FinishReason::kStop || event.token_id < 0) return finish("", event.finish_reason);
  StopMatcher::Result result = stop_matcher_.push(decoder_.push(event.token_id));
  if (result.stopped) return {std::move(result.text), FinishReason::kStop};
  if (event.finish_reason == FinishReason::kNone) return {std::move(result.text), FinishReason::kNone};
  return finish(std::move(result.text), event.finish_reason);
}

ChoiceDelta ChoiceText::finish(std::string text, FinishReason reason) {
  const StopMatcher::Result rest = stop_matcher_.push(decoder_.flush());
  text += rest.text;
  if (rest.stopped) return {std::move(text), FinishReason::kStop};
  return {text + stop_matcher_.flush(), reason};
}

}  // namespace skipper

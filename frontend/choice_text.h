// The text of one choice: tokens in, text out that is final, until a stop string or the engine ends it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/generation_request.h"
#include "frontend/serving_context.h"
#include "processor/stop_matcher.h"

namespace skipper {

struct ChoiceDelta {
  std::string text;
  FinishReason finish_reason = FinishReason::kNone;
};

// Belongs to one thread.
class ChoiceText {
 public:
  ChoiceText(TokenTextDecoder decoder, std::vector<std::string> stop_strings);

  // The text that `event` makes final. kStop when its token ends the answer or completes a stop string (the engine does not
  // know of the latter and must be told). Not for errors and cancellations.
  ChoiceDelta add(const TokenEvent& event);

 private:
  ChoiceDelta finish(std::string text, FinishReason reason);

  TokenTextDecoder decoder_;
  StopMatcher stop_matcher_;
};

}  // namespace skipper

// Token by token from ids to text, never half a character.
#pragma once

#include <cstdint>
#include <string>

#include "processor/bpe_tokenizer.h"

namespace skipper {

// Whether special tokens appear in the text or leave no trace.
enum class SpecialTokenText : uint8_t { kKeep, kSkip };

// The texts of all push() and of flush() in a row are the decoded ids, with U+FFFD for each stretch of bytes that is no
// character (Python's errors="replace"). Belongs to one thread; the tokenizer must outlive it.
class IncrementalDetokenizer {
 public:
  IncrementalDetokenizer(const BpeTokenizer& tokenizer, SpecialTokenText special_tokens);

  // The characters that `token_id` completes; it holds back the beginning of one that a later token may complete.
  std::string push(int32_t token_id);

  // What is left: nothing, or U+FFFD for a character that was never completed. The next push() starts afresh.
  std::string flush();

 private:
  const BpeTokenizer& tokenizer_;
  SpecialTokenText special_tokens_;
  std::string pending_;  // at most three bytes, the beginning of a character
};

}  // namespace skipper

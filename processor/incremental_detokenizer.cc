#include "processor/incremental_detokenizer.h"

#include "processor/utf8.h"

namespace skipper {
namespace {

constexpr const char* kReplacementCharacter = "\xEF\xBF\xBD";

}  // namespace

IncrementalDetokenizer::IncrementalDetokenizer(const BpeTokenizer& tokenizer, SpecialTokenText special_tokens)
    : tokenizer_(tokenizer), special_tokens_(special_tokens) {}

std::string IncrementalDetokenizer::push(int32_t token_id) {
  if (special_tokens_ == SpecialTokenText::kSkip && tokenizer_.is_special(token_id)) return "";
  pending_ += tokenizer_.token_bytes(token_id);
  std::string text;
  size_t done = 0;
  while (done < pending_.size()) {
    const Utf8Unit unit = read_utf8(pending_, done);
    if (unit.status == Utf8Status::kCutOff) break;
    if (unit.status == Utf8Status::kComplete) {
      text.append(pending_, done, unit.length);
    } else {
      text += kReplacementCharacter;
    }
    done += unit.length;
  }
  pending_.erase(0, done);
  return text;
}

std::string IncrementalDetokenizer::flush() {
  const bool is_cut_off = !pending_.empty();
  pending_.clear();
  return is_cut_off ? kReplacementCharacter : "";
}

}  // namespace skipper

#include "jinja/text_replacing.h"

#include "jinja/unicode_text.h"

namespace skipper::jinja {
namespace {

// Appends within the budget.
class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : budget_(budget) {}

  void append(std::string_view part) {
    budget_.check_text(text_.size() + part.size());
    budget_.spend_bytes(part.size() + 1);
    text_ += part;
  }
  std::string take() { return std::move(text_); }

 private:
  Budget& budget_;
  std::string text_;
};

std::string insert_between_characters(Budget& budget, std::string_view text, const Replacement& replacement) {
  TextBuilder result(budget);
  int64_t count = 0;
  const auto may_insert = [&] { return replacement.max_count < 0 || count < replacement.max_count; };
  for (std::string_view character : split_characters(text)) {
    if (may_insert()) {
      result.append(replacement.to);
      ++count;
    }
    result.append(character);
  }
  if (may_insert()) result.append(replacement.to);
  return result.take();
}

}  // namespace

std::string replace_all(Budget& budget, std::string_view text, const Replacement& replacement) {
  budget.spend_text(text.size());
  if (replacement.from.empty()) return insert_between_characters(budget, text, replacement);
  TextBuilder result(budget);
  int64_t count = 0;
  for (size_t at = text.find(replacement.from); at != text.npos; at = text.find(replacement.from)) {
    if (replacement.max_count >= 0 && count == replacement.max_count) break;
    result.append(text.substr(0, at));
    result.append(replacement.to);
    text.remove_prefix(at + replacement.from.size());
    ++count;
  }
  result.append(text);
  return result.take();
}

int64_t count_occurrences(std::string_view text, std::string_view part) {
  if (part.empty()) return static_cast<int64_t>(count_characters(text)) + 1;
  int64_t count = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

std::string join_texts(Budget& budget, const std::vector<std::string>& texts, std::string_view separator) {
  TextBuilder result(budget);
  for (size_t i = 0; i < texts.size(); ++i) {
    if (i > 0) result.append(separator);
    result.append(texts[i]);
  }
  return result.take();
}

}  // namespace skipper::jinja

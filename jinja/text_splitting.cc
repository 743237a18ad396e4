#include "jinja/text_splitting.h"

#include <algorithm>

#include "jinja/unicode_text.h"

namespace skipper::jinja {
namespace {

using Pieces = std::vector<std::string_view>;

size_t find_space(std::string_view text) {
  size_t offset = 0;
  while (offset < text.size() && !is_space(character_at(text, offset).code)) offset += character_at(text, offset).size;
  return offset;
}

// Start of the last word of a text that does not end with a space.
size_t last_word(std::string_view text) {
  size_t start = 0;
  for (size_t offset = 0; offset < text.size();) {
    const Character character = character_at(text, offset);
    offset += character.size;
    if (is_space(character.code)) start = offset;
  }
  return start;
}

Pieces split_at_spaces_from_left(std::string_view text, int64_t max_splits) {
  Pieces pieces;
  for (text = strip_left(text); !text.empty(); text = strip_left(text)) {
    if (max_splits >= 0 && static_cast<int64_t>(pieces.size()) == max_splits) {
      pieces.push_back(text);
      return pieces;
    }
    const size_t end = find_space(text);
    pieces.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return pieces;
}

Pieces split_at_spaces_from_right(std::string_view text, int64_t max_splits) {
  Pieces pieces;
  for (text = strip_right(text); !text.empty(); text = strip_right(text)) {
    if (static_cast<int64_t>(pieces.size()) == max_splits) {
      pieces.push_back(text);
      break;
    }
    const size_t start = last_word(text);
    pieces.push_back(text.substr(start));
    text = text.substr(0, start);
  }
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

bool is_line_end(uint32_t code) {
  return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 || code == 0x2028 ||
         code == 0x2029;
}

}  // namespace

Pieces split_at_spaces(std::string_view text, int64_t max_splits, SplitFrom from) {
  // Without a limit both ends give the same words.
  const bool from_right = from == SplitFrom::kRight && max_splits >= 0;
  return from_right ? split_at_spaces_from_right(text, max_splits) : split_at_spaces_from_left(text, max_splits);
}

Pieces split_at(std::string_view text, std::string_view separator, int64_t max_splits, SplitFrom from) {
  Pieces pieces;
  const auto may_split = [&] { return max_splits < 0 || static_cast<int64_t>(pieces.size()) < max_splits; };
  if (from == SplitFrom::kLeft) {
    for (size_t at = text.find(separator); at != text.npos && may_split(); at = text.find(separator)) {
      pieces.push_back(text.substr(0, at));
      text.remove_prefix(at + separator.size());
    }
    pieces.push_back(text);
    return pieces;
  }
  for (size_t at = text.rfind(separator); at != text.npos && may_split(); at = text.rfind(separator)) {
    pieces.push_back(text.substr(at + separator.size()));
    text = text.substr(0, at);
  }
  pieces.push_back(text);
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

Pieces split_lines(std::string_view text) {
  Pieces lines;
  size_t start = 0;
  for (size_t offset = 0; offset < text.size();) {
    const Character character = character_at(text, offset);
    const size_t end = offset;
    offset += character.size;
    if (!is_line_end(character.code)) continue;
    if (text[end] == '\r' && offset < text.size() && text[offset] == '\n') ++offset;
    lines.push_back(text.substr(start, end - start));
    start = offset;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

}  // namespace skipper::jinja

#include "processor/character_class.h"

#include <utf8proc.h>

#include "processor/utf8.h"

namespace skipper {
namespace {

bool is_joiner(char32_t code_point) { return code_point == 0x200C || code_point == 0x200D; }

// Other_Alphabetic beyond the marks: the circled and squared Latin letters, which are symbols (So) by category.
bool is_enclosed_letter(char32_t code_point) {
  return (code_point >= 0x24B6 && code_point <= 0x24E9) || (code_point >= 0x1F130 && code_point <= 0x1F149) ||
         (code_point >= 0x1F150 && code_point <= 0x1F169) || (code_point >= 0x1F170 && code_point <= 0x1F189);
}

bool is_word_character(char32_t code_point) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return is_joiner(code_point) || is_enclosed_letter(code_point);
  }
}

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// `end` > 0.
size_t begin_of_last_character(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && is_continuation(text[begin])) --begin;
  return begin;
}

}  // namespace

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

size_t begin_of_trailing_space(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0) {
    const size_t last = begin_of_last_character(text, begin);
    if (!is_white_space(read_utf8(text, last).code_point)) break;
    begin = last;
  }
  return begin;
}

size_t end_of_leading_space(std::string_view text) {
  size_t end = 0;
  while (end < text.size()) {
    const Utf8Unit unit = read_utf8(text, end);
    if (!is_white_space(unit.code_point)) break;
    end += unit.length;
  }
  return end;
}

bool starts_with_word_character(std::string_view text) {
  return !text.empty() && is_word_character(read_utf8(text, 0).code_point);
}

bool ends_with_word_character(std::string_view text) {
  return !text.empty() && is_word_character(read_utf8(text, begin_of_last_character(text, text.size())).code_point);
}

}  // namespace skipper

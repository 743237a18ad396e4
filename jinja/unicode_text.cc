#include "jinja/unicode_text.h"

#include <utf8proc.h>

#include <algorithm>

namespace skipper::jinja {
namespace {

using CaseMapping = utf8proc_int32_t (*)(utf8proc_int32_t);

constexpr uint32_t kSharpS = 0xDF;

// Appends the character at `offset` mapped by `mapping`; returns its size in `text`.
size_t append_mapped(std::string& result, std::string_view text, size_t offset, CaseMapping mapping) {
  const Character character = character_at(text, offset);
  if (character.code == kInvalidCode) {
    result += text[offset];
  } else if (character.code == kSharpS && mapping != utf8proc_tolower) {
    result += mapping == utf8proc_toupper ? "SS" : "Ss";
  } else {
    append_character(result, static_cast<uint32_t>(mapping(static_cast<utf8proc_int32_t>(character.code))));
  }
  return character.size;
}

std::string map_case(std::string_view text, CaseMapping mapping) {
  std::string result;
  result.reserve(text.size());
  for (size_t offset = 0; offset < text.size();) offset += append_mapped(result, text, offset, mapping);
  return result;
}

bool is_cased(uint32_t code) {
  if (code == kInvalidCode) return false;
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT;
}

template <typename Drop>
std::string_view strip_left_if(std::string_view text, Drop drop) {
  size_t offset = 0;
  while (offset < text.size()) {
    const Character character = character_at(text, offset);
    if (!drop(text.substr(offset, character.size), character.code)) break;
    offset += character.size;
  }
  return text.substr(offset);
}

// Start of the last character of a text that is not empty.
size_t last_character(std::string_view text) {
  size_t start = text.size() - 1;
  const size_t first_possible = text.size() >= 4 ? text.size() - 4 : 0;
  while (start > first_possible && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
  return start + character_at(text, start).size == text.size() ? start : text.size() - 1;
}

template <typename Drop>
std::string_view strip_right_if(std::string_view text, Drop drop) {
  while (!text.empty()) {
    const size_t start = last_character(text);
    if (!drop(text.substr(start), character_at(text, start).code)) break;
    text = text.substr(0, start);
  }
  return text;
}

}  // namespace

Character character_at(std::string_view text, size_t offset) {
  utf8proc_int32_t code = 0;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + offset;
  const auto size = utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size() - offset), &code);
  if (size <= 0) return {kInvalidCode, 1};
  return {static_cast<uint32_t>(code), static_cast<size_t>(size)};
}

void append_character(std::string& text, uint32_t code) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

size_t count_characters(std::string_view text) {
  size_t count = 0;
  for (size_t offset = 0; offset < text.size(); ++count) offset += character_at(text, offset).size;
  return count;
}

std::vector<size_t> character_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t offset = 0; offset < text.size(); offset += character_at(text, offset).size) offsets.push_back(offset);
  offsets.push_back(text.size());
  return offsets;
}

std::vector<std::string_view> split_characters(std::string_view text) {
  std::vector<std::string_view> characters;
  for (size_t offset = 0; offset < text.size();) {
    const size_t size = character_at(text, offset).size;
    characters.push_back(text.substr(offset, size));
    offset += size;
  }
  return characters;
}

bool is_space(uint32_t code) {
  if (code <= 0x20) return code == 0x20 || (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x1F);
  if (code >= 0x2000 && code <= 0x200A) return true;
  static constexpr uint32_t kOthers[] = {0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
  return std::find(std::begin(kOthers), std::end(kOthers), code) != std::end(kOthers);
}

bool is_printable(uint32_t code) {
  if (code == 0x20) return true;
  if (code == kInvalidCode) return false;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return false;
    default: return true;
  }
}

std::string_view strip_left(std::string_view text) {
  return strip_left_if(text, [](std::string_view, uint32_t code) { return is_space(code); });
}

std::string_view strip_left(std::string_view text, std::string_view characters) {
  return strip_left_if(text, [&](std::string_view bytes, uint32_t) { return characters.find(bytes) != characters.npos; });
}

std::string_view strip_right(std::string_view text) {
  return strip_right_if(text, [](std::string_view, uint32_t code) { return is_space(code); });
}

std::string_view strip_right(std::string_view text, std::string_view characters) {
  return strip_right_if(text,
                        [&](std::string_view bytes, uint32_t) { return characters.find(bytes) != characters.npos; });
}

std::string to_upper(std::string_view text) { return map_case(text, utf8proc_toupper); }
std::string to_lower(std::string_view text) { return map_case(text, utf8proc_tolower); }

std::string capitalize(std::string_view text) {
  if (text.empty()) return "";
  std::string result;
  const size_t first = append_mapped(result, text, 0, utf8proc_totitle);
  return result + to_lower(text.substr(first));
}

std::string title_case(std::string_view text) {
  std::string result;
  bool inside_word = false;
  for (size_t offset = 0; offset < text.size();) {
    const bool cased = is_cased(character_at(text, offset).code);
    offset += append_mapped(result, text, offset, inside_word ? utf8proc_tolower : utf8proc_totitle);
    inside_word = cased;
  }
  return result;
}

}  // namespace skipper::jinja

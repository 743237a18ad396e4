// Text as Python's str sees it: characters (code points) in UTF-8 bytes, white space, case.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace skipper::jinja {

// One character of a text. A byte that is not UTF-8 counts as one character and has kInvalidCode.
struct Character {
  uint32_t code;
  size_t size;  // bytes, at least 1
};
inline constexpr uint32_t kInvalidCode = 0xFFFFFFFF;

// The character that starts at `offset`, which is inside the text.
Character character_at(std::string_view text, size_t offset);
void append_character(std::string& text, uint32_t code);

size_t count_characters(std::string_view text);
// Byte offset of every character, then the size of the text.
std::vector<size_t> character_offsets(std::string_view text);
std::vector<std::string_view> split_characters(std::string_view text);

bool is_space(uint32_t code);      // str.isspace
bool is_printable(uint32_t code);  // str.isprintable: repr escapes the others

// `strip_left` drops characters from `characters` (white space where none are given) at the start, and so on.
std::string_view strip_left(std::string_view text);
std::string_view strip_left(std::string_view text, std::string_view characters);
std::string_view strip_right(std::string_view text);
std::string_view strip_right(std::string_view text, std::string_view characters);

// Case by Unicode's one-to-one mappings and "ß" to "SS"; the rarer characters that become several ("ﬁ") stay.
std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);  // first character upper, the rest lower
std::string title_case(std::string_view text);  // str.title: every run of letters capitalised

}  // namespace skipper::jinja

#include "jinja/string_literal.h"

#include <cstdint>
#include <optional>

#include "jinja/failure.h"
#include "jinja/unicode_text.h"

namespace skipper::jinja {
namespace {

constexpr uint32_t kLastCodePoint = 0x10FFFF;

// \n, \t ...: the characters with a letter of their own.
std::optional<char> single_letter_escape(char letter) {
  switch (letter) {
    case 'n': return '\n';
    case 't': return '\t';
    case 'r': return '\r';
    case 'a': return '\a';
    case 'b': return '\b';
    case 'f': return '\f';
    case 'v': return '\v';
    case '\\': return '\\';
    case '\'': return '\'';
    case '"': return '"';
    default: return std::nullopt;
  }
}

// How many hexadecimal digits follow \x, \u and \U.
size_t num_hex_digits(char letter) { return letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0; }

int digit_value(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return 99;
}

uint32_t parse_hex(std::string_view digits, size_t expected) {
  if (digits.size() < expected) throw Failure("a \\x, \\u or \\U escape has too few digits");
  uint32_t code = 0;
  for (char digit : digits.substr(0, expected)) {
    const int value = digit_value(digit);
    if (value >= 16) throw Failure("a \\x, \\u or \\U escape has a character that is not a hexadecimal digit");
    code = code * 16 + static_cast<uint32_t>(value);
  }
  const bool is_surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (code > kLastCodePoint || is_surrogate) throw Failure("an escape names no Unicode character");
  return code;
}

// Appends the octal character at the start of `digits`; returns how many digits it has.
size_t append_octal(std::string& text, std::string_view digits) {
  uint32_t code = 0;
  size_t count = 0;
  while (count < 3 && count < digits.size() && digit_value(digits[count]) < 8) {
    code = code * 8 + static_cast<uint32_t>(digit_value(digits[count++]));
  }
  append_character(text, code);
  return count;
}

// `rest` follows a backslash and is not empty; returns how much of it the escape takes.
size_t append_escape(std::string& text, std::string_view rest) {
  if (const auto character = single_letter_escape(rest[0])) {
    text += *character;
    return 1;
  }
  if (const size_t digits = num_hex_digits(rest[0])) {
    append_character(text, parse_hex(rest.substr(1), digits));
    return 1 + digits;
  }
  if (digit_value(rest[0]) < 8) return append_octal(text, rest);
  if (rest[0] == '\n') return 1;  // the line goes on
  if (rest[0] == 'N') throw Failure("\\N{...} escapes are not supported; write the character itself");
  text += '\\';  // an unknown escape stays as it is
  return 0;
}

}  // namespace

std::string unescape_string(std::string_view body) {
  std::string text;
  for (size_t i = 0; i < body.size();) {
    if (body[i] != '\\' || i + 1 == body.size()) {
      text += body[i++];
    } else {
      i += 1 + append_escape(text, body.substr(i + 1));
    }
  }
  return text;
}

}  // namespace skipper::jinja

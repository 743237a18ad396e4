#include "processor/utf8.h"

namespace skipper {
namespace {

// What a first byte announces. The second byte's range is narrower after E0, ED, F0 and F4: it excludes overlong forms,
// surrogates and what lies beyond U+10FFFF (Unicode, table 3-7).
struct Lead {
  size_t length = 0;  // 0: no character starts so
  uint8_t second_min = 0x80;
  uint8_t second_max = 0xBF;
};

Lead classify_lead(uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

// The bits of the code point that the first byte of a character of `length` bytes carries.
char32_t lead_bits(uint8_t byte, size_t length) { return length == 1 ? byte : byte & (0x7Fu >> length); }

}  // namespace

Utf8Unit read_utf8(std::string_view text, size_t offset) {
  const auto byte_at = [&](size_t i) { return static_cast<uint8_t>(text[offset + i]); };
  const Lead lead = classify_lead(byte_at(0));
  if (lead.length == 0) return {Utf8Status::kInvalid, 1, 0};
  char32_t code_point = lead_bits(byte_at(0), lead.length);
  for (size_t i = 1; i < lead.length; ++i) {
    if (offset + i == text.size()) return {Utf8Status::kCutOff, i, 0};
    const uint8_t min = i == 1 ? lead.second_min : 0x80;
    const uint8_t max = i == 1 ? lead.second_max : 0xBF;
    if (byte_at(i) < min || byte_at(i) > max) return {Utf8Status::kInvalid, i, 0};
    code_point = code_point << 6 | (byte_at(i) & 0x3Fu);
  }
  return {Utf8Status::kComplete, lead.length, code_point};
}

std::optional<size_t> find_invalid_utf8(std::string_view text) {
  for (size_t offset = 0; offset < text.size();) {
    const Utf8Unit unit = read_utf8(text, offset);
    if (unit.status != Utf8Status::kComplete) return offset;
    offset += unit.length;
  }
  return std::nullopt;
}

void append_utf8(char32_t code_point, std::string& text) {
  const auto append = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  const auto append_tail = [&](int shift) { append(0x80 | (code_point >> shift & 0x3F)); };
  if (code_point < 0x80) {
    append(code_point);
  } else if (code_point < 0x800) {
    append(0xC0 | code_point >> 6);
    append_tail(0);
  } else if (code_point < 0x10000) {
    append(0xE0 | code_point >> 12);
    append_tail(6);
    append_tail(0);
  } else {
    append(0xF0 | code_point >> 18);
    append_tail(12);
    append_tail(6);
    append_tail(0);
  }
}

}  // namespace skipper

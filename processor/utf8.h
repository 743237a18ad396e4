// UTF-8, byte by byte: what is complete, what is broken, what is only cut off.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace skipper {

enum class Utf8Status : uint8_t {
  kComplete,  // one character
  kInvalid,   // bytes that no continuation can repair
  kCutOff,    // a correct beginning of a character, but the text ends
};

// `length` bytes belong together: the character, or the longest beginning of one that stands in its place (Unicode, section
// 3.9, "maximal subpart": what one U+FFFD replaces).
struct Utf8Unit {
  Utf8Status status = Utf8Status::kComplete;
  size_t length = 0;
  char32_t code_point = 0;  // only for kComplete
};

// The unit at `offset` < text.size().
Utf8Unit read_utf8(std::string_view text, size_t offset);

// The offset of the first byte that is not part of a complete character; nothing when all is well.
std::optional<size_t> find_invalid_utf8(std::string_view text);

void append_utf8(char32_t code_point, std::string& text);

}  // namespace skipper

// The characters in which byte-level vocabularies write bytes: printable ones for themselves, U+0100 on for the others.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace skipper {

// The bytes that `text` (UTF-8) stands for; nothing when it holds a character that stands for none.
std::optional<std::string> bytes_of_alphabet_text(std::string_view text);

}  // namespace skipper

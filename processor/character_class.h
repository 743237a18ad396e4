// White space and word characters at the edges of a text, as the regular expressions of Rust define \s and \w.
#pragma once

#include <cstddef>
#include <string_view>

namespace skipper {

// All texts are valid UTF-8.

// Unicode's White_Space.
bool is_white_space(char32_t code_point);

// Where the run of white space begins that ends `text`; text.size() when there is none.
size_t begin_of_trailing_space(std::string_view text);

// Where the run of white space ends that begins `text`; 0 when there is none.
size_t end_of_leading_space(std::string_view text);

// Letters and other Alphabetic characters, marks, decimal digits, connector punctuation and joiners.
bool starts_with_word_character(std::string_view text);
bool ends_with_word_character(std::string_view text);

}  // namespace skipper

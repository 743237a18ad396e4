// Python's str.split, rsplit and splitlines.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace skipper::jinja {

enum class SplitFrom : uint8_t { kLeft, kRight };

// At most `max_splits` splits, counted from one end; negative: no limit. Runs of white space separate, none at the ends.
std::vector<std::string_view> split_at_spaces(std::string_view text, int64_t max_splits, SplitFrom from);

// `separator` is not empty.
std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, int64_t max_splits,
                                       SplitFrom from);

// Without the line ends; no empty line after the last one.
std::vector<std::string_view> split_lines(std::string_view text);

}  // namespace skipper::jinja

// Python's str.replace, count and join, within a budget.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/budget.h"
#include "jinja/value.h"

namespace skipper::jinja {

struct Replacement {
  std::string from;  // empty: before every character and at the end
  std::string to;
  int64_t max_count = -1;  // negative: all
};
std::string replace_all(Budget& budget, std::string_view text, const Replacement& replacement);

// How often `part` occurs without overlapping.
int64_t count_occurrences(std::string_view text, std::string_view part);

std::string join_texts(Budget& budget, const std::vector<std::string>& texts, std::string_view separator);

}  // namespace skipper::jinja

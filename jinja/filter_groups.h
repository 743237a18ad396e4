// The filters by what they work on; filters.h puts them together.
#pragma once

#include <string_view>

#include "jinja/filters.h"

namespace skipper::jinja {

// Each returns null when the name is not in its group.
FilterFunction find_text_filter(std::string_view name);
FilterFunction find_number_filter(std::string_view name);
FilterFunction find_list_filter(std::string_view name);
FilterFunction find_selection_filter(std::string_view name);

}  // namespace skipper::jinja

#include "jinja/filters.h"

#include "jinja/filter_groups.h"

namespace skipper::jinja {

FilterFunction find_filter(std::string_view name) {
  for (const auto find : {find_text_filter, find_number_filter, find_list_filter, find_selection_filter}) {
    if (const FilterFunction filter = find(name)) return filter;
  }
  return nullptr;
}

}  // namespace skipper::jinja

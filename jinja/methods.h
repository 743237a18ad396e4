// The methods values have: text.strip(), map.items(), list.index(x). Only those that change nothing.
#pragma once

#include <string_view>

#include "jinja/budget.h"
#include "jinja/value.h"

namespace skipper::jinja {

using Method = Value (*)(Budget& budget, const Value& object, const Arguments& arguments);

// Null when values of `object`'s type have no such method.
Method find_method(const Value& object, std::string_view name);

// One table per type that has methods; null when the name is not in it.
Method find_string_method(std::string_view name);
Method find_map_method(std::string_view name);
Method find_list_method(std::string_view name);

}  // namespace skipper::jinja

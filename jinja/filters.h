// The filters of the subset: `input | name(arguments)`.
#pragma once

#include <string_view>

#include "jinja/budget.h"
#include "jinja/value.h"

namespace skipper::jinja {

// Throws Failure for inputs and arguments the filter does not take.
using FilterFunction = Value (*)(Budget& budget, const Value& input, const Arguments& arguments);

// Null when the name is unknown.
FilterFunction find_filter(std::string_view name);

}  // namespace skipper::jinja

// The tests of the subset: `input is name(arguments)`.
#pragma once

#include <string_view>

#include "jinja/budget.h"
#include "jinja/value.h"

namespace skipper::jinja {

// Throws Failure for inputs and arguments the test does not take.
using TestFunction = bool (*)(Budget& budget, const Value& input, const Arguments& arguments);

// Null when the name is unknown. Comparison operators are names too, as selectattr("x", "==", 1) needs them.
TestFunction find_test(std::string_view name);

}  // namespace skipper::jinja

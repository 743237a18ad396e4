// Values as text: what {{ }} prints, Python's str() and repr().
#pragma once

#include <string>

#include "jinja/budget.h"
#include "jinja/value.h"

namespace skipper::jinja {

// What {{ value }} prints. Throws Failure for values without a text of their own (functions, iterators, namespaces).
std::string to_text(Budget& budget, const Value& value);

// Shortest text that reads back as the same number: "1.0", "1e+16", "nan".
std::string float_text(double number);

}  // namespace skipper::jinja

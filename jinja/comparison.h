// Equality, order and membership of values, as Python sees them.
#pragma once

#include "jinja/ast.h"
#include "jinja/budget.h"
#include "jinja/value.h"

namespace skipper::jinja {

// True == 1 == 1.0; maps by content in any order; a list is never equal to a tuple; functions and namespaces by identity.
bool equal(Budget& budget, const Value& left, const Value& right);

// left < right. Throws Failure for types without a common order.
bool less(Budget& budget, const Value& left, const Value& right);

// item in container: a substring, a key, an element. Throws Failure when `container` cannot contain anything.
bool contains(Budget& budget, const Value& container, const Value& item);

bool compare(Budget& budget, ComparisonOperator op, const Value& left, const Value& right);

}  // namespace skipper::jinja

// The operators + - * / // % ** and the signs, with Python's results; integers have 64 bits and overflow is an error.
#pragma once

#include "jinja/ast.h"
#include "jinja/budget.h"
#include "jinja/value.h"

namespace skipper::jinja {

// Throw Failure for operands the operator does not take, overflow, and division by zero.
Value apply_binary(Budget& budget, BinaryOperator op, const Value& left, const Value& right);
Value negate(const Value& value);
Value unary_plus(const Value& value);

}  // namespace skipper::jinja

#include "jinja/arithmetic.h"

#include <cmath>

#include "jinja/failure.h"

namespace skipper::jinja {
namespace {

[[noreturn]] void fail_overflow() { throw Failure("an integer does not fit into 64 bits"); }

std::string symbol_of(BinaryOperator op) {
  switch (op) {
    case BinaryOperator::kAdd: return "+";
    case BinaryOperator::kSubtract: return "-";
    case BinaryOperator::kMultiply: return "*";
    case BinaryOperator::kDivide: return "/";
    case BinaryOperator::kFloorDivide: return "//";
    case BinaryOperator::kModulo: return "%";
    case BinaryOperator::kPower: return "**";
  }
  return "?";
}

int64_t floor_divide(int64_t left, int64_t right) {
  if (right == 0) throw Failure("division by zero");
  if (left == INT64_MIN && right == -1) fail_overflow();
  const int64_t quotient = left / right;
  return quotient * right != left && (left < 0) != (right < 0) ? quotient - 1 : quotient;
}

// The result has the sign of `right`.
int64_t modulo(int64_t left, int64_t right) {
  if (right == 0) throw Failure("modulo by zero");
  if (right == -1) return 0;
  const int64_t rest = left % right;
  return rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest;
}

double modulo(double left, double right) {
  if (right == 0) throw Failure("modulo by zero");
  const double rest = std::fmod(left, right);
  if (rest == 0) return std::copysign(0.0, right);
  return (rest < 0) != (right < 0) ? rest + right : rest;
}

double floor_divide(double left, double right) {
  if (right == 0) throw Failure("division by zero");
  const double rest = modulo(left, right);
  const double quotient = (left - rest) / right;
  const double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1 : whole;
}

Value power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) throw Failure("0 cannot be raised to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  if (base == 0 || base == 1) return Value(exponent == 0 ? int64_t{1} : base);
  if (base == -1) return Value(exponent % 2 == 0 ? int64_t{1} : int64_t{-1});
  int64_t result = 1;  // |base| is at least 2, so this overflows within 64 rounds
  for (int64_t i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(result, base, &result)) fail_overflow();
  }
  return Value(result);
}

Value apply_to_ints(BinaryOperator op, int64_t left, int64_t right) {
  int64_t result = 0;
  switch (op) {
    case BinaryOperator::kAdd:
      if (__builtin_add_overflow(left, right, &result)) fail_overflow();
      return Value(result);
    case BinaryOperator::kSubtract:
      if (__builtin_sub_overflow(left, right, &result)) fail_overflow();
      return Value(result);
    case BinaryOperator::kMultiply:
      if (__builtin_mul_overflow(left, right, &result)) fail_overflow();
      return Value(result);
    case BinaryOperator::kDivide:
      if (right == 0) throw Failure("division by zero");
      return Value(static_cast<double>(left) / static_cast<double>(right));
    case BinaryOperator::kFloorDivide: return Value(floor_divide(left, right));
    case BinaryOperator::kModulo: return Value(modulo(left, right));
    case BinaryOperator::kPower: return power(left, right);
  }
  return Value();
}

double power(double base, double exponent) {
  if (base == 0 && exponent < 0) throw Failure("0 cannot be raised to a negative power");
  if (base < 0 && exponent != std::floor(exponent)) throw Failure("complex numbers are not supported");
  const double result = std::pow(base, exponent);
  if (std::isinf(result) && std::isfinite(base) && std::isfinite(exponent)) throw Failure("a number is too large");
  return result;
}

Value apply_to_floats(BinaryOperator op, double left, double right) {
  switch (op) {
    case BinaryOperator::kAdd: return Value(left + right);
    case BinaryOperator::kSubtract: return Value(left - right);
    case BinaryOperator::kMultiply: return Value(left * right);
    case BinaryOperator::kDivide:
      if (right == 0) throw Failure("division by zero");
      return Value(left / right);
    case BinaryOperator::kFloorDivide: return Value(floor_divide(left, right));
    case BinaryOperator::kModulo: return Value(modulo(left, right));
    case BinaryOperator::kPower: return Value(power(left, right));
  }
  return Value();
}

bool is_concrete_list(const Value& value, SequenceKind kind) { return value.is_list() && value.as_list()->kind == kind; }

bool are_lists_of_one_kind(const Value& left, const Value& right) {
  return (is_concrete_list(left, SequenceKind::kList) && is_concrete_list(right, SequenceKind::kList)) ||
         (is_concrete_list(left, SequenceKind::kTuple) && is_concrete_list(right, SequenceKind::kTuple));
}

Value join_lists(Budget& budget, const List& left, const List& right) {
  budget.spend_values(left.items.size() + right.items.size());
  std::vector<Value> items = left.items;
  items.insert(items.end(), right.items.begin(), right.items.end());
  return Value::list(std::move(items), left.kind);
}

size_t repeated_size(size_t size, int64_t times) {
  size_t total = 0;
  if (__builtin_mul_overflow(size, static_cast<size_t>(times), &total)) return SIZE_MAX;
  return total;
}

// "ab" * 3, [0] * 3
Value repeat(Budget& budget, const Value& sequence, int64_t times) {
  if (times < 0) times = 0;
  if (sequence.is_string()) {
    const size_t size = repeated_size(sequence.as_string().size(), times);
    budget.spend_text(size);
    std::string text;
    text.reserve(size);
    while (text.size() < size) text += sequence.as_string();
    return Value(std::move(text));
  }
  const List& list = *sequence.as_list();
  const size_t size = repeated_size(list.items.size(), times);
  budget.spend_values(size);
  std::vector<Value> items;
  items.reserve(size);
  while (items.size() < size) items.insert(items.end(), list.items.begin(), list.items.end());
  return Value::list(std::move(items), list.kind);
}

bool is_repeatable(const Value& value) {
  return value.is_string() || is_concrete_list(value, SequenceKind::kList) ||
         is_concrete_list(value, SequenceKind::kTuple);
}

bool is_integral(const Value& value) { return value.is_int() || value.is_bool(); }

[[noreturn]] void fail_operands(BinaryOperator op, const Value& left, const Value& right) {
  for (const Value* operand : {&left, &right}) {
    if (operand->is_undefined()) throw Failure(operand->undefined_reason());
  }
  if (op == BinaryOperator::kModulo && left.is_string()) throw Failure("formatting with % is not supported");
  throw Failure("'" + symbol_of(op) + "' does not take " + left.type_name() + " and " + right.type_name());
}

}  // namespace

Value apply_binary(Budget& budget, BinaryOperator op, const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    if (left.is_float() || right.is_float()) return apply_to_floats(op, left.as_double(), right.as_double());
    return apply_to_ints(op, left.as_int(), right.as_int());
  }
  if (op == BinaryOperator::kAdd && left.is_string() && right.is_string()) {
    budget.spend_text(left.as_string().size() + right.as_string().size());
    return Value(left.as_string() + right.as_string());
  }
  if (op == BinaryOperator::kAdd && are_lists_of_one_kind(left, right)) {
    return join_lists(budget, *left.as_list(), *right.as_list());
  }
  if (op == BinaryOperator::kMultiply && is_repeatable(left) && is_integral(right)) {
    return repeat(budget, left, right.as_int());
  }
  if (op == BinaryOperator::kMultiply && is_integral(left) && is_repeatable(right)) {
    return repeat(budget, right, left.as_int());
  }
  fail_operands(op, left, right);
}

Value negate(const Value& value) {
  if (value.is_float()) return Value(-value.as_double());
  if (value.is_number()) return apply_to_ints(BinaryOperator::kSubtract, 0, value.as_int());
  if (value.is_undefined()) throw Failure(value.undefined_reason());
  throw Failure("'-' does not take " + value.type_name());
}

Value unary_plus(const Value& value) {
  if (value.is_float()) return value;
  if (value.is_number()) return Value(value.as_int());
  if (value.is_undefined()) throw Failure(value.undefined_reason());
  throw Failure("'+' does not take " + value.type_name());
}

}  // namespace skipper::jinja

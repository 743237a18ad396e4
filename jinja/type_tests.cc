#include "jinja/type_tests.h"

#include <algorithm>
#include <array>

#include "jinja/arguments.h"
#include "jinja/arithmetic.h"
#include "jinja/comparison.h"
#include "jinja/unicode_text.h"
#include "jinja/value_text.h"

namespace skipper::jinja {
namespace {

template <bool (*kHolds)(const Value&)>
bool without_arguments(Budget&, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("the test", arguments, {});
  return kHolds(input);
}

bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_undefined(const Value& value) { return value.is_undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_boolean(const Value& value) { return value.is_bool(); }
bool is_true(const Value& value) { return value.is_bool() && value.as_bool(); }
bool is_false(const Value& value) { return value.is_bool() && !value.as_bool(); }
bool is_integer(const Value& value) { return value.is_int(); }
bool is_float(const Value& value) { return value.is_float(); }
bool is_number(const Value& value) { return value.is_number(); }
bool is_string(const Value& value) { return value.is_string(); }
bool is_mapping(const Value& value) { return value.is_map(); }
bool is_callable(const Value& value) { return value.is_callable(); }
bool is_iterable(const Value& value) {
  return value.is_list() || value.is_string() || value.is_map() || value.is_undefined();
}
bool is_sequence(const Value& value) {
  if (!value.is_list()) return value.is_string() || value.is_map() || value.is_undefined();
  return value.as_list()->kind != SequenceKind::kView && value.as_list()->kind != SequenceKind::kIterator;
}

bool has_remainder(Budget& budget, const Value& input, int64_t divisor, int64_t remainder) {
  return equal(budget, apply_binary(budget, BinaryOperator::kModulo, input, Value(divisor)), Value(remainder));
}

bool odd(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("odd", arguments, {});
  return has_remainder(budget, input, 2, 1);
}

bool even(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("even", arguments, {});
  return has_remainder(budget, input, 2, 0);
}

bool divisibleby(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("divisibleby", arguments, {"num"});
  return equal(budget, apply_binary(budget, BinaryOperator::kModulo, input, bound.at(0)), Value(int64_t{0}));
}

template <ComparisonOperator kOp>
bool compared(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("the test", arguments, {"value"});
  return compare(budget, kOp, input, bound.at(0));
}

// str.islower: some character has case, and all that have are lower.
bool lower(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("lower", arguments, {});
  const std::string text = to_text(budget, input);
  return to_lower(text) == text && to_upper(text) != text;
}

bool upper(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("upper", arguments, {});
  const std::string text = to_text(budget, input);
  return to_upper(text) == text && to_lower(text) != text;
}

struct TestEntry {
  std::string_view name;
  TestFunction test;
};
constexpr std::array<TestEntry, 35> kTests = {{
    {"defined", without_arguments<is_defined>},
    {"undefined", without_arguments<is_undefined>},
    {"none", without_arguments<is_none>},
    {"boolean", without_arguments<is_boolean>},
    {"true", without_arguments<is_true>},
    {"false", without_arguments<is_false>},
    {"integer", without_arguments<is_integer>},
    {"float", without_arguments<is_float>},
    {"number", without_arguments<is_number>},
    {"string", without_arguments<is_string>},
    {"mapping", without_arguments<is_mapping>},
    {"iterable", without_arguments<is_iterable>},
    {"sequence", without_arguments<is_sequence>},
    {"callable", without_arguments<is_callable>},
    {"odd", odd},
    {"even", even},
    {"divisibleby", divisibleby},
    {"lower", lower},
    {"upper", upper},
    {"in", compared<ComparisonOperator::kIn>},
    {"equalto", compared<ComparisonOperator::kEqual>},
    {"eq", compared<ComparisonOperator::kEqual>},
    {"==", compared<ComparisonOperator::kEqual>},
    {"ne", compared<ComparisonOperator::kNotEqual>},
    {"!=", compared<ComparisonOperator::kNotEqual>},
    {"lt", compared<ComparisonOperator::kLess>},
    {"lessthan", compared<ComparisonOperator::kLess>},
    {"<", compared<ComparisonOperator::kLess>},
    {"le", compared<ComparisonOperator::kLessOrEqual>},
    {"<=", compared<ComparisonOperator::kLessOrEqual>},
    {"gt", compared<ComparisonOperator::kGreater>},
    {"greaterthan", compared<ComparisonOperator::kGreater>},
    {">", compared<ComparisonOperator::kGreater>},
    {"ge", compared<ComparisonOperator::kGreaterOrEqual>},
    {">=", compared<ComparisonOperator::kGreaterOrEqual>},
}};

}  // namespace

TestFunction find_test(std::string_view name) {
  const auto entry = std::find_if(kTests.begin(), kTests.end(), [&](const TestEntry& e) { return e.name == name; });
  return entry == kTests.end() ? nullptr : entry->test;
}

}  // namespace skipper::jinja

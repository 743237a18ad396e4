#include "jinja/comparison.h"

#include <algorithm>

#include "jinja/failure.h"

namespace skipper::jinja {
namespace {

bool equal_lists(Budget& budget, const List& left, const List& right) {
  if (left.kind != right.kind || left.items.size() != right.items.size()) return false;
  for (size_t i = 0; i < left.items.size(); ++i) {
    if (!equal(budget, left.items[i], right.items[i])) return false;
  }
  return true;
}

bool equal_maps(Budget& budget, const Map& left, const Map& right) {
  if (left.size() != right.size()) return false;
  for (const auto& [key, value] : left.entries()) {
    const Value* other = right.find(key);
    if (other == nullptr || !equal(budget, value, *other)) return false;
  }
  return true;
}

bool equal_numbers(const Value& left, const Value& right) {
  if (left.is_float() || right.is_float()) return left.as_double() == right.as_double();
  return left.as_int() == right.as_int();
}

bool less_numbers(const Value& left, const Value& right) {
  if (left.is_float() || right.is_float()) return left.as_double() < right.as_double();
  return left.as_int() < right.as_int();
}

// The first unequal pair decides; a prefix is less.
bool less_lists(Budget& budget, const List& left, const List& right) {
  const size_t common = std::min(left.items.size(), right.items.size());
  for (size_t i = 0; i < common; ++i) {
    if (!equal(budget, left.items[i], right.items[i])) return less(budget, left.items[i], right.items[i]);
  }
  return left.items.size() < right.items.size();
}

}  // namespace

bool equal(Budget& budget, const Value& left, const Value& right) {
  budget.spend_step();
  if (left.is_number() && right.is_number()) return equal_numbers(left, right);
  if (left.is_string() && right.is_string()) return left.as_string() == right.as_string();
  if (left.is_list() && right.is_list()) {
    const bool same = left.as_list() == right.as_list();
    return same || equal_lists(budget, *left.as_list(), *right.as_list());
  }
  if (left.is_map() && right.is_map()) return equal_maps(budget, left.as_map(), right.as_map());
  if (left.is_namespace() && right.is_namespace()) return &left.as_namespace() == &right.as_namespace();
  if (left.is_callable() && right.is_callable()) return &left.as_callable() == &right.as_callable();
  if (left.is_loop() && right.is_loop()) return left.as_loop() == right.as_loop();
  return (left.is_none() && right.is_none()) || (left.is_undefined() && right.is_undefined());
}

bool less(Budget& budget, const Value& left, const Value& right) {
  budget.spend_step();
  for (const Value* operand : {&left, &right}) {
    if (operand->is_undefined()) throw Failure(operand->undefined_reason());
  }
  if (left.is_number() && right.is_number()) return less_numbers(left, right);
  if (left.is_string() && right.is_string()) return left.as_string() < right.as_string();
  const bool are_sequences = left.is_list() && right.is_list() && left.as_list()->kind == right.as_list()->kind &&
                             (left.as_list()->kind == SequenceKind::kList || left.as_list()->kind == SequenceKind::kTuple);
  if (are_sequences) return less_lists(budget, *left.as_list(), *right.as_list());
  throw Failure(left.type_name() + " and " + right.type_name() + " have no order");
}

bool contains(Budget& budget, const Value& container, const Value& item) {
  if (container.is_undefined()) return false;
  if (container.is_string()) {
    if (item.is_undefined()) throw Failure(item.undefined_reason());
    if (!item.is_string()) throw Failure("'in' looks for a str in a str, not for a " + item.type_name());
    budget.spend_bytes(container.as_string().size());
    return container.as_string().find(item.as_string()) != std::string::npos;
  }
  if (container.is_map()) return item.is_string() && container.as_map().find(item.as_string()) != nullptr;
  if (!container.is_list()) throw Failure("'in' does not look into a " + container.type_name());
  const std::vector<Value>& items = container.as_list()->items;
  return std::any_of(items.begin(), items.end(), [&](const Value& other) { return equal(budget, other, item); });
}

bool compare(Budget& budget, ComparisonOperator op, const Value& left, const Value& right) {
  switch (op) {
    case ComparisonOperator::kEqual: return equal(budget, left, right);
    case ComparisonOperator::kNotEqual: return !equal(budget, left, right);
    case ComparisonOperator::kLess: return less(budget, left, right);
    case ComparisonOperator::kGreater: return less(budget, right, left);
    // Not the negation of the opposite: both are false for nan.
    case ComparisonOperator::kLessOrEqual: return less(budget, left, right) || equal(budget, left, right);
    case ComparisonOperator::kGreaterOrEqual: return less(budget, right, left) || equal(budget, left, right);
    case ComparisonOperator::kIn: return contains(budget, right, left);
    case ComparisonOperator::kNotIn: return !contains(budget, right, left);
  }
  return false;
}

}  // namespace skipper::jinja

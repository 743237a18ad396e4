// Filters that apply another filter or test to every item: map, select, reject, selectattr, rejectattr.
#include "jinja/arguments.h"
#include "jinja/failure.h"
#include "jinja/filter_groups.h"
#include "jinja/item_attribute.h"
#include "jinja/sequence_access.h"
#include "jinja/type_tests.h"

namespace skipper::jinja {
namespace {

// What follows the first `count` positional arguments.
Arguments without_first(const Arguments& arguments, size_t count) {
  Arguments rest;
  for (size_t i = count; i < arguments.positional.size(); ++i) rest.positional.push_back(arguments.positional[i]);
  rest.named = arguments.named;
  return rest;
}

std::string name_argument(const Arguments& arguments, size_t index) {
  const Value& name = arguments.positional[index];
  if (!name.is_string()) throw Failure("the name of a filter or test must be a str, not " + name.type_name());
  return name.as_string();
}

Value map_attribute(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("map", arguments, {"attribute", "default"});
  const ItemAttribute attribute(bound.at(0));
  std::vector<Value> results;
  for (const Value& item : iterate(budget, input)) {
    budget.spend_step();
    const Value value = attribute.of(budget, item);
    results.push_back(value.is_undefined() && bound.has(1) ? bound.at(1) : value);
  }
  return Value::list(std::move(results), SequenceKind::kIterator);
}

// map(attribute="x") or map("filter", arguments...)
Value map(Budget& budget, const Value& input, const Arguments& arguments) {
  if (arguments.positional.empty()) return map_attribute(budget, input, arguments);
  const std::string name = name_argument(arguments, 0);
  const FilterFunction filter = find_filter(name);
  if (filter == nullptr) throw Failure("map: the filter '" + name + "' is not supported");
  const Budget::Nesting nesting(budget);  // the filter may be map itself
  const Arguments rest = without_first(arguments, 1);
  std::vector<Value> results;
  for (const Value& item : iterate(budget, input)) {
    budget.spend_step();
    results.push_back(filter(budget, item, rest));
  }
  return Value::list(std::move(results), SequenceKind::kIterator);
}

// A test with its arguments; without a name, whether the value is true.
class Condition {
 public:
  Condition(const Arguments& arguments, size_t name_index) {
    if (arguments.positional.size() <= name_index) return;
    const std::string name = name_argument(arguments, name_index);
    test_ = find_test(name);
    if (test_ == nullptr) throw Failure("the test '" + name + "' is not supported");
    arguments_ = without_first(arguments, name_index + 1);
  }

  bool holds(Budget& budget, const Value& value) const {
    return test_ == nullptr ? value.truth() : test_(budget, value, arguments_);
  }

 private:
  TestFunction test_ = nullptr;
  Arguments arguments_;
};

template <bool kWanted>
Value filter_items(Budget& budget, const Value& input, const Arguments& arguments) {
  const Condition condition(arguments, 0);
  std::vector<Value> kept;
  for (const Value& item : iterate(budget, input)) {
    budget.spend_step();
    if (condition.holds(budget, item) == kWanted) kept.push_back(item);
  }
  return Value::list(std::move(kept), SequenceKind::kIterator);
}

template <bool kWanted>
Value filter_items_by_attribute(Budget& budget, const Value& input, const Arguments& arguments) {
  if (arguments.positional.empty()) throw Failure("selectattr and rejectattr need the name of an attribute");
  const ItemAttribute attribute(arguments.positional[0]);
  const Condition condition(arguments, 1);
  std::vector<Value> kept;
  for (const Value& item : iterate(budget, input)) {
    budget.spend_step();
    if (condition.holds(budget, attribute.of(budget, item)) == kWanted) kept.push_back(item);
  }
  return Value::list(std::move(kept), SequenceKind::kIterator);
}

}  // namespace

FilterFunction find_selection_filter(std::string_view name) {
  if (name == "map") return map;
  if (name == "select") return filter_items<true>;
  if (name == "reject") return filter_items<false>;
  if (name == "selectattr") return filter_items_by_attribute<true>;
  if (name == "rejectattr") return filter_items_by_attribute<false>;
  return nullptr;
}

}  // namespace skipper::jinja

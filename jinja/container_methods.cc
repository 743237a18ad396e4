// Methods of maps and lists, and the choice of a method by the type of its object.
#include <algorithm>

#include "jinja/arguments.h"
#include "jinja/comparison.h"
#include "jinja/failure.h"
#include "jinja/methods.h"

namespace skipper::jinja {
namespace {

Value items(Budget& budget, const Value& object, const Arguments& arguments) {
  const BoundArguments bound("items", arguments, {});
  budget.spend_values(3 * object.as_map().size());
  std::vector<Value> pairs;
  for (const auto& [key, value] : object.as_map().entries()) {
    pairs.push_back(Value::list({Value(key), value}, SequenceKind::kTuple));
  }
  return Value::list(std::move(pairs), SequenceKind::kView);
}

Value keys(Budget& budget, const Value& object, const Arguments& arguments) {
  const BoundArguments bound("keys", arguments, {});
  budget.spend_values(object.as_map().size());
  std::vector<Value> keys;
  for (const auto& [key, value] : object.as_map().entries()) keys.emplace_back(key);
  return Value::list(std::move(keys), SequenceKind::kView);
}

Value values(Budget& budget, const Value& object, const Arguments& arguments) {
  const BoundArguments bound("values", arguments, {});
  budget.spend_values(object.as_map().size());
  std::vector<Value> values;
  for (const auto& [key, value] : object.as_map().entries()) values.push_back(value);
  return Value::list(std::move(values), SequenceKind::kView);
}

Value get(Budget&, const Value& object, const Arguments& arguments) {
  const BoundArguments bound("get", arguments, {"key", "default"});
  const Value* value = bound.at(0).is_string() ? object.as_map().find(bound.at(0).as_string()) : nullptr;
  return value != nullptr ? *value : bound.value_or(1, Value());
}

// Maps and lists never change, so the copy is the original.
Value copy(Budget&, const Value& object, const Arguments& arguments) {
  const BoundArguments bound("copy", arguments, {});
  return object;
}

Value count(Budget& budget, const Value& object, const Arguments& arguments) {
  const BoundArguments bound("count", arguments, {"value"});
  const std::vector<Value>& items = object.as_list()->items;
  return Value(static_cast<int64_t>(std::count_if(items.begin(), items.end(), [&](const Value& item) {
    return equal(budget, item, bound.at(0));
  })));
}

Value index(Budget& budget, const Value& object, const Arguments& arguments) {
  const BoundArguments bound("index", arguments, {"value"});
  const std::vector<Value>& items = object.as_list()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (equal(budget, items[i], bound.at(0))) return Value::size(i);
  }
  throw Failure("index: the value is not in the list");
}

}  // namespace

Method find_map_method(std::string_view name) {
  if (name == "items") return items;
  if (name == "keys") return keys;
  if (name == "values") return values;
  if (name == "get") return get;
  if (name == "copy") return copy;
  return nullptr;
}

Method find_list_method(std::string_view name) {
  if (name == "count") return count;
  if (name == "index") return index;
  return nullptr;
}

Method find_method(const Value& object, std::string_view name) {
  if (object.is_string()) return find_string_method(name);
  if (object.is_map()) return find_map_method(name);
  if (object.is_list()) return find_list_method(name);
  return nullptr;
}

}  // namespace skipper::jinja

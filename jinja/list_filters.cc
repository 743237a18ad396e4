// Filters on lists and maps, and those that take a value of any type.
#include <algorithm>
#include <array>

#include "jinja/arguments.h"
#include "jinja/arithmetic.h"
#include "jinja/comparison.h"
#include "jinja/failure.h"
#include "jinja/filter_groups.h"
#include "jinja/item_attribute.h"
#include "jinja/methods.h"
#include "jinja/sequence_access.h"
#include "jinja/text_replacing.h"
#include "jinja/text_splitting.h"
#include "jinja/unicode_text.h"
#include "jinja/value_text.h"

namespace skipper::jinja {
namespace {

enum class Order { kAscending, kDescending };

// Case is ignored unless asked for.
Value sort_key(const Value& value, const Value& case_sensitive) {
  const bool keeps_case = !value.is_string() || case_sensitive.truth();
  return keeps_case ? value : Value(to_lower(value.as_string()));
}

struct KeyedItem {
  Value key;
  Value item;
};

std::vector<Value> sorted_items(Budget& budget, std::vector<KeyedItem> keyed, Order order) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const KeyedItem& left, const KeyedItem& right) {
    return order == Order::kAscending ? less(budget, left.key, right.key) : less(budget, right.key, left.key);
  });
  std::vector<Value> items;
  for (KeyedItem& entry : keyed) items.push_back(std::move(entry.item));
  return items;
}

Value length(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("length", arguments, {});
  return Value::size(length_of(budget, input));
}

Value fallback(Budget&, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("default", arguments, {"default_value", "boolean"});
  const bool replaced = input.is_undefined() || (bound.truth(1) && !input.truth());
  return replaced ? bound.value_or(0, Value("")) : input;
}

Value first(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("first", arguments, {});
  const std::vector<Value> items = iterate(budget, input);
  return items.empty() ? Value::undefined("first of an empty sequence") : items.front();
}

Value last(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("last", arguments, {});
  if (input.is_list() && input.as_list()->kind == SequenceKind::kIterator) throw Failure("last cannot read a generator");
  const std::vector<Value> items = iterate(budget, input);
  return items.empty() ? Value::undefined("last of an empty sequence") : items.back();
}

Value list(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("list", arguments, {});
  return Value::list(iterate(budget, input));
}

Value reverse(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("reverse", arguments, {});
  if (input.is_string()) return slice(budget, input, {Value(), Value(), Value(int64_t{-1})});
  std::vector<Value> items = iterate(budget, input);
  std::reverse(items.begin(), items.end());
  const bool was_iterator = input.is_list() && input.as_list()->kind == SequenceKind::kIterator;
  return Value::list(std::move(items), was_iterator ? SequenceKind::kList : SequenceKind::kIterator);
}

Value join(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("join", arguments, {"d", "attribute"});
  const bool by_attribute = bound.has(1) && !bound.at(1).is_none();
  std::vector<std::string> texts;
  for (const Value& item : iterate(budget, input)) {
    budget.spend_step();
    texts.push_back(to_text(budget, by_attribute ? ItemAttribute(bound.at(1)).of(budget, item) : item));
  }
  return Value(join_texts(budget, texts, to_text(budget, bound.value_or(0, Value("")))));
}

Value items(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("items", arguments, {});
  if (input.is_undefined()) return Value::list({}, SequenceKind::kIterator);
  if (!input.is_map()) throw Failure("items needs a dict, not " + input.type_name());
  const Value pairs = find_map_method("items")(budget, input, {});
  return Value::list(pairs.as_list()->items, SequenceKind::kIterator);
}

// By one attribute, or by several with commas between them.
Value key_of_item(Budget& budget, const Value& item, const BoundArguments& bound, size_t attribute_index) {
  const Value& case_sensitive = bound.value_or(1, Value(false));
  if (!bound.has(attribute_index) || bound.at(attribute_index).is_none()) return sort_key(item, case_sensitive);
  const Value& attribute = bound.at(attribute_index);
  if (!attribute.is_string()) return sort_key(ItemAttribute(attribute).of(budget, item), case_sensitive);
  std::vector<Value> keys;
  for (std::string_view name : split_at(attribute.as_string(), ",", -1, SplitFrom::kLeft)) {
    keys.push_back(sort_key(ItemAttribute(Value(name)).of(budget, item), case_sensitive));
  }
  return Value::list(std::move(keys));
}

Value sort(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<KeyedItem> keyed;
  for (const Value& item : iterate(budget, input)) {
    budget.spend_step();
    keyed.push_back({key_of_item(budget, item, bound, 2), item});
  }
  return Value::list(sorted_items(budget, std::move(keyed), bound.truth(0) ? Order::kDescending : Order::kAscending));
}

Value dictsort(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.text_or(1, "key");
  if (by != "key" && by != "value") throw Failure("dictsort sorts by 'key' or 'value', not by '" + by + "'");
  if (!input.is_map()) throw Failure("dictsort needs a dict, not " + input.type_name());
  budget.spend_values(3 * input.as_map().size());
  std::vector<KeyedItem> keyed;
  for (const auto& [key, value] : input.as_map().entries()) {
    const Value pair = Value::list({Value(key), value}, SequenceKind::kTuple);
    keyed.push_back({sort_key(by == "key" ? Value(key) : value, bound.value_or(0, Value(false))), pair});
  }
  return Value::list(sorted_items(budget, std::move(keyed), bound.truth(2) ? Order::kDescending : Order::kAscending));
}

Value unique(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("unique", arguments, {"case_sensitive", "attribute"});
  const bool by_attribute = bound.has(1) && !bound.at(1).is_none();
  std::vector<Value> seen;
  std::vector<Value> kept;
  for (const Value& item : iterate(budget, input)) {
    const Value value = by_attribute ? ItemAttribute(bound.at(1)).of(budget, item) : item;
    const Value key = sort_key(value, bound.value_or(0, Value(false)));
    const bool is_new = std::none_of(seen.begin(), seen.end(), [&](const Value& old) { return equal(budget, old, key); });
    if (!is_new) continue;
    seen.push_back(key);
    kept.push_back(item);
  }
  return Value::list(std::move(kept), SequenceKind::kIterator);
}

// The first of the smallest or largest items.
template <Order kOrder>
Value extreme(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound(kOrder == Order::kAscending ? "min" : "max", arguments, {"case_sensitive", "attribute"});
  const bool by_attribute = bound.has(1) && !bound.at(1).is_none();
  std::vector<KeyedItem> keyed;
  for (const Value& item : iterate(budget, input)) {
    const Value value = by_attribute ? ItemAttribute(bound.at(1)).of(budget, item) : item;
    keyed.push_back({sort_key(value, bound.value_or(0, Value(false))), item});
  }
  if (keyed.empty()) return Value::undefined("the sequence is empty");
  return sorted_items(budget, std::move(keyed), kOrder).front();
}

Value sum(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("sum", arguments, {"attribute", "start"});
  const bool by_attribute = bound.has(0) && !bound.at(0).is_none();
  Value total = bound.value_or(1, Value(int64_t{0}));
  if (total.is_string()) throw Failure("sum cannot add texts; use join");
  for (const Value& item : iterate(budget, input)) {
    budget.spend_step();
    const Value value = by_attribute ? ItemAttribute(bound.at(0)).of(budget, item) : item;
    total = apply_binary(budget, BinaryOperator::kAdd, total, value);
  }
  return total;
}

// Rows of `linecount` items, the last one filled up if asked for.
Value batch(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("batch", arguments, {"linecount", "fill_with"});
  const int64_t row_size = bound.integer_or(0, 0);
  if (row_size < 1 || row_size > 100'000) throw Failure("batch needs a linecount from 1 to 100000");
  std::vector<Value> rows;
  std::vector<Value> row;
  const auto finish_row = [&] {
    rows.push_back(Value::list(std::exchange(row, {})));
  };
  for (const Value& item : iterate(budget, input)) {
    row.push_back(item);
    if (static_cast<int64_t>(row.size()) == row_size) finish_row();
  }
  if (!row.empty()) {
    const bool fills = bound.has(1) && !bound.at(1).is_none();
    budget.spend_values(static_cast<size_t>(row_size));
    if (fills) row.resize(static_cast<size_t>(row_size), bound.at(1));
    finish_row();
  }
  return Value::list(std::move(rows), SequenceKind::kIterator);
}

struct ListFilter {
  std::string_view name;
  FilterFunction filter;
};
constexpr std::array<ListFilter, 17> kListFilters = {{{"length", length},
                                             {"count", length},
                                             {"default", fallback},
                                             {"d", fallback},
                                             {"first", first},
                                             {"last", last},
                                             {"list", list},
                                             {"reverse", reverse},
                                             {"join", join},
                                             {"items", items},
                                             {"sort", sort},
                                             {"dictsort", dictsort},
                                             {"unique", unique},
                                             {"min", extreme<Order::kAscending>},
                                             {"max", extreme<Order::kDescending>},
                                             {"sum", sum},
                                             {"batch", batch}}};

}  // namespace

FilterFunction find_list_filter(std::string_view name) {
  const auto entry = std::find_if(kListFilters.begin(), kListFilters.end(), [&](const ListFilter& e) { return e.name == name; });
  return entry == kListFilters.end() ? nullptr : entry->filter;
}

}  // namespace skipper::jinja

#include "jinja/value.h"

#include <algorithm>

#include "jinja/failure.h"

namespace skipper::jinja {
namespace {

int checked_depth(int deepest_item) {
  if (deepest_item >= Value::kMaxDepth) {
    throw Failure("lists and maps nest more than " + std::to_string(Value::kMaxDepth) + " levels deep");
  }
  return deepest_item + 1;
}

std::string sequence_type_name(SequenceKind kind) {
  switch (kind) {
    case SequenceKind::kList: return "list";
    case SequenceKind::kTuple: return "tuple";
    case SequenceKind::kRange: return "range";
    case SequenceKind::kView: return "dict view";
    case SequenceKind::kIterator: return "generator";
  }
  return "list";
}

}  // namespace

const Value* Map::find(std::string_view key) const {
  const auto place = places_.find(std::string(key));
  return place == places_.end() ? nullptr : &entries_[place->second].second;
}

void Map::set(std::string key, Value value) {
  const auto [place, is_new] = places_.emplace(key, entries_.size());
  if (is_new) {
    entries_.emplace_back(std::move(key), std::move(value));
  } else {
    entries_[place->second].second = std::move(value);
  }
}

Value Value::undefined(std::string reason) {
  Value value;
  value.data_ = Undefined{std::make_shared<const std::string>(std::move(reason))};
  return value;
}

Value Value::list(std::vector<Value> items, SequenceKind kind) {
  int deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, item.depth());
  Value value;
  value.data_ = std::make_shared<List>(List{std::move(items), kind, checked_depth(deepest)});
  return value;
}

Value Value::map(Map map) {
  int deepest = 0;
  for (const auto& [key, item] : map.entries()) deepest = std::max(deepest, item.depth());
  const int depth = checked_depth(deepest);
  Value value;
  value.data_ = std::make_shared<const MapBox>(MapBox{std::move(map), depth});
  return value;
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_float()) return as_double() != 0.0;
  if (is_bool() || is_int()) return as_int() != 0;
  if (is_string()) return !as_string().empty();
  if (is_list()) return as_list()->kind == SequenceKind::kIterator || !as_list()->items.empty();
  if (is_map()) return as_map().size() != 0;
  return true;
}

std::string Value::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_string()) return "str";
  if (is_list()) return sequence_type_name(as_list()->kind);
  if (is_map()) return "dict";
  if (is_namespace()) return "Namespace";
  if (is_loop()) return "loop";
  return "function";
}

int Value::depth() const {
  if (is_list()) return as_list()->depth;
  if (is_map()) return std::get<MapPtr>(data_)->depth;
  if (is_loop()) return as_loop()->items->depth;
  return 0;
}

}  // namespace skipper::jinja

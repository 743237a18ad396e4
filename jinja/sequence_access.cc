#include "jinja/sequence_access.h"

#include <algorithm>

#include "jinja/failure.h"
#include "jinja/unicode_text.h"

namespace skipper::jinja {
namespace {

std::vector<Value> characters_of(Budget& budget, const std::string& text) {
  budget.spend_values(text.size());
  std::vector<Value> characters;
  for (std::string_view character : split_characters(text)) characters.emplace_back(character);
  return characters;
}

std::vector<Value> keys_of(Budget& budget, const Map& map) {
  budget.spend_values(map.size());
  std::vector<Value> keys;
  for (const auto& [key, value] : map.entries()) keys.emplace_back(key);
  return keys;
}

bool has_positions(SequenceKind kind) { return kind != SequenceKind::kView && kind != SequenceKind::kIterator; }

// -1 is the last; nothing when out of range.
std::optional<size_t> resolve_position(int64_t position, size_t size) {
  if (position < 0) position += static_cast<int64_t>(size);
  if (position < 0 || position >= static_cast<int64_t>(size)) return std::nullopt;
  return static_cast<size_t>(position);
}

Value character_of(Budget& budget, const std::string& text, int64_t position) {
  budget.spend_bytes(text.size());
  const std::vector<size_t> offsets = character_offsets(text);
  const auto at = resolve_position(position, offsets.size() - 1);
  if (!at) return Value::undefined("the string has no character " + std::to_string(position));
  return Value(text.substr(offsets[*at], offsets[*at + 1] - offsets[*at]));
}

std::string key_text(const Value& key) {
  if (key.is_string()) return "'" + key.as_string() + "'";
  return key.is_int() ? std::to_string(key.as_int()) : "of type " + key.type_name();
}

std::optional<int64_t> bound_of(const Value& bound) {
  if (bound.is_none()) return std::nullopt;
  if (!bound.is_int() && !bound.is_bool()) throw Failure("a slice needs integers, not " + bound.type_name());
  return bound.as_int();
}

// The positions of a slice, by the rules of Python's slice.indices.
std::vector<size_t> slice_positions(Budget& budget, const SliceBounds& bounds, size_t size) {
  const int64_t count = static_cast<int64_t>(size);
  const int64_t step = bound_of(bounds.step).value_or(1);
  if (step == 0) throw Failure("a slice's step cannot be 0");
  const int64_t lowest = step > 0 ? 0 : -1;
  const int64_t highest = step > 0 ? count : count - 1;
  const auto clamp = [&](std::optional<int64_t> bound, int64_t fallback) {
    if (!bound) return fallback;
    return std::clamp(*bound < 0 ? *bound + count : *bound, lowest, highest);
  };
  const int64_t start = clamp(bound_of(bounds.start), step > 0 ? lowest : highest);
  const int64_t stop = clamp(bound_of(bounds.stop), step > 0 ? highest : lowest);
  budget.spend_values(size);
  std::vector<size_t> positions;
  for (int64_t at = start; step > 0 ? at < stop : at > stop;) {
    positions.push_back(static_cast<size_t>(at));
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return positions;
}

Value slice_string(Budget& budget, const std::string& text, const SliceBounds& bounds) {
  const std::vector<size_t> offsets = character_offsets(text);
  std::string result;
  for (size_t at : slice_positions(budget, bounds, offsets.size() - 1)) {
    result.append(text, offsets[at], offsets[at + 1] - offsets[at]);
  }
  return Value(std::move(result));
}

}  // namespace

size_t length_of(Budget& budget, const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_map()) return value.as_map().size();
  if (value.is_list() && value.as_list()->kind != SequenceKind::kIterator) return value.as_list()->items.size();
  if (!value.is_string()) throw Failure("a " + value.type_name() + " has no length");
  budget.spend_bytes(value.as_string().size());
  return count_characters(value.as_string());
}

std::vector<Value> iterate(Budget& budget, const Value& value) {
  if (value.is_undefined()) return {};
  if (value.is_string()) return characters_of(budget, value.as_string());
  if (value.is_map()) return keys_of(budget, value.as_map());
  if (!value.is_list()) throw Failure("a " + value.type_name() + " cannot be iterated");
  budget.spend_values(value.as_list()->items.size());
  if (value.as_list()->kind == SequenceKind::kIterator) return std::exchange(value.as_list()->items, {});
  return value.as_list()->items;
}

Value subscript(Budget& budget, const Value& object, const Value& key) {
  if (object.is_undefined()) throw Failure(object.undefined_reason());
  const bool is_position = key.is_int() || key.is_bool();
  if (object.is_map() && key.is_string()) {
    const Value* value = object.as_map().find(key.as_string());
    if (value != nullptr) return *value;
  }
  if (object.is_string() && is_position) return character_of(budget, object.as_string(), key.as_int());
  if (object.is_list() && is_position && has_positions(object.as_list()->kind)) {
    const auto at = resolve_position(key.as_int(), object.as_list()->items.size());
    if (at) return object.as_list()->items[*at];
  }
  if (object.is_namespace() && key.is_string()) {
    const Value* value = object.as_namespace().attributes.find(key.as_string());
    if (value != nullptr) return *value;
  }
  return Value::undefined("the " + object.type_name() + " has no item " + key_text(key));
}

Value slice(Budget& budget, const Value& object, const SliceBounds& bounds) {
  if (object.is_undefined()) throw Failure(object.undefined_reason());
  if (object.is_string()) {
    budget.spend_values(object.as_string().size());
    return slice_string(budget, object.as_string(), bounds);
  }
  if (!object.is_list() || !has_positions(object.as_list()->kind)) {
    throw Failure("a " + object.type_name() + " cannot be sliced");
  }
  const List& list = *object.as_list();
  std::vector<Value> items;
  for (size_t at : slice_positions(budget, bounds, list.items.size())) items.push_back(list.items[at]);
  return Value::list(std::move(items), list.kind);
}

}  // namespace skipper::jinja

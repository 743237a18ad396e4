#include "jinja/value_json.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "jinja/failure.h"
#include "jinja/unicode_text.h"
#include "jinja/value_text.h"

namespace skipper::jinja {
namespace {

using nlohmann::ordered_json;

Value from_json(const ordered_json& json, int depth) {
  if (depth > Value::kMaxDepth) throw Failure("JSON nests too deeply");
  switch (json.type()) {
    case ordered_json::value_t::boolean: return Value(json.get<bool>());
    case ordered_json::value_t::number_integer: return Value(json.get<int64_t>());
    case ordered_json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) throw Failure("a number does not fit into 64 bits");
      return Value(json.get<int64_t>());
    case ordered_json::value_t::number_float: return Value(json.get<double>());
    case ordered_json::value_t::string: return Value(json.get_ref<const std::string&>());
    case ordered_json::value_t::array: {
      std::vector<Value> items;
      for (const auto& item : json) items.push_back(from_json(item, depth + 1));
      return Value::list(std::move(items));
    }
    case ordered_json::value_t::object: {
      Map map;
      for (const auto& [key, item] : json.items()) map.set(key, from_json(item, depth + 1));
      return Value::map(std::move(map));
    }
    default: return Value();
  }
}

void append_unicode_escape(std::string& text, uint32_t unit) {
  char escape[8];
  std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(unit & 0xFFFF));
  text += escape;
}

void append_ascii(std::string& text, uint32_t code) {
  if (code < 0x10000) return append_unicode_escape(text, code);
  append_unicode_escape(text, 0xD800 + ((code - 0x10000) >> 10));
  append_unicode_escape(text, 0xDC00 + ((code - 0x10000) & 0x3FF));
}

// The letter after the backslash, or 0.
char json_escape_letter(char byte) {
  switch (byte) {
    case '"': return '"';
    case '\\': return '\\';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    case '\f': return 'f';
    case '\b': return 'b';
    default: return 0;
  }
}

// Recursion is bounded by Value::kMaxDepth, work by the budget.
class JsonWriter {
 public:
  JsonWriter(Budget& budget, const JsonStyle& style) : budget_(budget), style_(style) {}

  void write(const Value& value) {
    if (value.is_none()) return append("null");
    if (value.is_bool()) return append(value.as_bool() ? "true" : "false");
    if (value.is_float()) return write_float(value.as_double());
    if (value.is_int()) return append(to_text(budget_, value));
    if (value.is_string()) return write_string(value.as_string());
    if (value.is_map()) return write_map(value.as_map());
    const bool is_array = value.is_list() && (value.as_list()->kind == SequenceKind::kList ||
                                              value.as_list()->kind == SequenceKind::kTuple);
    if (!is_array) throw Failure("a value of type " + value.type_name() + " has no JSON form");
    write_list(value.as_list()->items);
  }

  std::string take() { return std::move(text_); }

 private:
  void append(std::string_view part) {
    budget_.check_text(text_.size() + part.size());
    budget_.spend_bytes(part.size() + 1);
    text_ += part;
  }

  void write_float(double number) {
    if (std::isnan(number)) return append("NaN");
    if (std::isinf(number)) return append(number > 0 ? "Infinity" : "-Infinity");
    append(float_text(number));
  }

  void write_string(const std::string& content) {
    std::string quoted = "\"";
    for (size_t offset = 0; offset < content.size();) {
      const Character character = character_at(content, offset);
      const char letter = json_escape_letter(content[offset]);
      if (letter != 0) {
        quoted += {'\\', letter};
      } else if (character.code < 0x20) {
        append_unicode_escape(quoted, character.code);
      } else if (escapes(character.code)) {
        append_ascii(quoted, character.code);
      } else {
        quoted.append(content, offset, character.size);
      }
      offset += character.size;
    }
    append(quoted + "\"");
  }

  bool escapes(uint32_t code) const {
    return code > 0x7E && code != kInvalidCode && style_.non_ascii == JsonStyle::NonAscii::kEscaped;
  }

  void write_list(const std::vector<Value>& items) {
    if (items.empty()) return append("[]");
    append("[");
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      start_item(i);
      write(items[i]);
    }
    --level_;
    start_line();
    append("]");
  }

  void write_map(const Map& map) {
    if (map.size() == 0) return append("{}");
    std::vector<const std::pair<std::string, Value>*> entries;
    for (const auto& entry : map.entries()) entries.push_back(&entry);
    if (style_.key_order == JsonStyle::KeyOrder::kSorted) {
      std::sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) { return a->first < b->first; });
    }
    append("{");
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      start_item(i);
      write_string(entries[i]->first);
      append(style_.key_separator);
      write(entries[i]->second);
    }
    --level_;
    start_line();
    append("}");
  }

  void start_item(size_t index) {
    if (index > 0) append(style_.item_separator);
    start_line();
  }

  void start_line() {
    if (!style_.indentation) return;
    append("\n");
    for (int i = 0; i < level_; ++i) append(*style_.indentation);
  }

  Budget& budget_;
  const JsonStyle& style_;
  std::string text_;
  int level_ = 0;
};

}  // namespace

Value value_from_json(const nlohmann::ordered_json& json) { return from_json(json, 0); }

std::string value_to_json(Budget& budget, const Value& value, const JsonStyle& style) {
  JsonWriter writer(budget, style);
  writer.write(value);
  return writer.take();
}

}  // namespace skipper::jinja

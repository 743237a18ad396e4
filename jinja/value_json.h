// Values from and to JSON: the context of a rendering, and the filter tojson.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "jinja/budget.h"
#include "jinja/value.h"

namespace skipper::jinja {

// Throws Failure for JSON that nests deeper than Value::kMaxDepth or has integers beyond 64 bits.
Value value_from_json(const nlohmann::ordered_json& json);

// Arguments of Python's json.dumps.
struct JsonStyle {
  enum class NonAscii : uint8_t { kKept, kEscaped };
  enum class KeyOrder : uint8_t { kInsertion, kSorted };
  NonAscii non_ascii = NonAscii::kKept;
  KeyOrder key_order = KeyOrder::kInsertion;
  std::optional<std::string> indentation;  // of one level; none: everything on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

// Throws Failure for values JSON has no form for.
std::string value_to_json(Budget& budget, const Value& value, const JsonStyle& style);

}  // namespace skipper::jinja

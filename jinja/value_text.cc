#include "jinja/value_text.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "jinja/failure.h"
#include "jinja/unicode_text.h"

namespace skipper::jinja {
namespace {

void append_escaped_code(std::string& text, uint32_t code) {
  char escape[16];
  const char* format = code <= 0xFF ? "\\x%02x" : code <= 0xFFFF ? "\\u%04x" : "\\U%08x";
  std::snprintf(escape, sizeof escape, format, static_cast<unsigned>(code));
  text += escape;
}

// Python's repr of a string: single quotes unless only double ones avoid a backslash.
std::string quoted_text(const std::string& content) {
  const bool has_single = content.find('\'') != std::string::npos;
  const char quote = has_single && content.find('"') == std::string::npos ? '"' : '\'';
  std::string text(1, quote);
  for (size_t offset = 0; offset < content.size();) {
    const Character character = character_at(content, offset);
    const char byte = content[offset];
    if (byte == quote || byte == '\\') {
      text += {'\\', byte};
    } else if (byte == '\n' || byte == '\r' || byte == '\t') {
      text += {'\\', byte == '\n' ? 'n' : byte == '\r' ? 'r' : 't'};
    } else if (is_printable(character.code)) {
      text.append(content, offset, character.size);
    } else {
      append_escaped_code(text, character.code == kInvalidCode ? static_cast<unsigned char>(byte) : character.code);
    }
    offset += character.size;
  }
  return text + quote;
}

// Writes Python's repr. Recursion is bounded by Value::kMaxDepth, work by the budget.
class ReprWriter {
 public:
  explicit ReprWriter(Budget& budget) : budget_(budget) {}

  void write(const Value& value) {
    if (value.is_string()) return append(quoted_text(value.as_string()));
    if (value.is_list()) return write_list(*value.as_list());
    if (value.is_map()) return write_map(value.as_map());
    append(value.is_undefined() ? "Undefined" : to_text(budget_, value));
  }

  std::string take() { return std::move(text_); }

 private:
  void append(std::string_view part) {
    budget_.check_text(text_.size() + part.size());
    budget_.spend_bytes(part.size());
    text_ += part;
  }

  void write_list(const List& list) {
    const bool is_tuple = list.kind == SequenceKind::kTuple;
    if (!is_tuple && list.kind != SequenceKind::kList) {
      throw Failure("a " + Value::list({}, list.kind).type_name() + " cannot be printed; apply the filter list first");
    }
    append(is_tuple ? "(" : "[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) append(", ");
      write(list.items[i]);
    }
    append(is_tuple ? (list.items.size() == 1 ? ",)" : ")") : "]");
  }

  void write_map(const Map& map) {
    append("{");
    for (size_t i = 0; i < map.size(); ++i) {
      const auto& [key, item] = map.entries()[i];
      if (i > 0) append(", ");
      append(quoted_text(key));
      append(": ");
      write(item);
    }
    append("}");
  }

  Budget& budget_;
  std::string text_;
};

}  // namespace

std::string to_text(Budget& budget, const Value& value) {
  if (value.is_undefined()) return "";
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.as_bool() ? "True" : "False";
  if (value.is_int()) return std::to_string(value.as_int());
  if (value.is_float()) return float_text(value.as_double());
  if (value.is_string()) {
    budget.spend_text(value.as_string().size());
    return value.as_string();
  }
  if (!value.is_list() && !value.is_map()) throw Failure("a " + value.type_name() + " cannot be printed");
  ReprWriter writer(budget);
  writer.write(value);
  return writer.take();
}

// Python switches to an exponent below 1e-4 and from 1e16 on.
std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  char digits[64];
  const double magnitude = std::fabs(number);
  const bool with_exponent = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);
  const auto format = with_exponent ? std::chars_format::scientific : std::chars_format::fixed;
  const auto end = std::to_chars(digits, digits + sizeof digits, number, format).ptr;
  std::string text(digits, end);
  if (!with_exponent && text.find('.') == std::string::npos) text += ".0";
  return text;
}

}  // namespace skipper::jinja

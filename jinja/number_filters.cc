// Filters that make or change numbers.
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "jinja/arguments.h"
#include "jinja/arithmetic.h"
#include "jinja/failure.h"
#include "jinja/filter_groups.h"
#include "jinja/unicode_text.h"

namespace skipper::jinja {
namespace {

// Python's digits may have single underscores between them.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto is_digit_at = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    if (text[i] != '_') {
      digits += text[i];
    } else if (i == 0 || !is_digit_at(i - 1) || !is_digit_at(i + 1)) {
      return std::nullopt;
    }
  }
  return digits;
}

// The number's text as from_chars reads it: no white space around it, no plus sign.
std::optional<std::string> number_text(const std::string& text) {
  std::string_view stripped = strip_left(strip_right(text));
  if (stripped.starts_with('+') && !stripped.starts_with("+-")) stripped.remove_prefix(1);
  return without_underscores(stripped);
}

std::optional<int64_t> parse_int(const std::string& text) {
  const auto digits = number_text(text);
  if (!digits) return std::nullopt;
  int64_t number = 0;
  const char* end = digits->data() + digits->size();
  const auto [stop, status] = std::from_chars(digits->data(), end, number);
  if (status == std::errc::result_out_of_range && stop == end) throw Failure("an integer does not fit into 64 bits");
  if (status != std::errc() || stop != end) return std::nullopt;
  return number;
}

std::optional<double> parse_float(const std::string& text) {
  const auto digits = number_text(text);
  if (!digits || digits->find_first_of("(") != std::string::npos) return std::nullopt;  // "nan(1)" is not Python's
  double number = 0;
  const char* end = digits->data() + digits->size();
  const auto [stop, status] = std::from_chars(digits->data(), end, number);
  if (stop != end || status == std::errc::invalid_argument) return std::nullopt;
  // Out of range is infinity or zero, which from_chars does not write.
  return status == std::errc() ? number : std::strtod(digits->c_str(), nullptr);
}

std::optional<int64_t> truncate(double number) {
  if (!std::isfinite(number)) return std::nullopt;
  if (std::fabs(number) >= 9.2e18) throw Failure("an integer does not fit into 64 bits");
  return static_cast<int64_t>(number);
}

std::optional<int64_t> truncate_text(const std::string& text) {
  if (const auto number = parse_int(text)) return number;
  const auto number = parse_float(text);
  return number ? truncate(*number) : std::nullopt;
}

Value to_int(Budget&, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("int", arguments, {"default", "base"});
  if (bound.integer_or(1, 10) != 10) throw Failure("int supports base 10 only");
  if (input.is_undefined()) throw Failure(input.undefined_reason());
  std::optional<int64_t> number;
  if (input.is_string()) number = truncate_text(input.as_string());
  if (input.is_float()) {
    if (std::isinf(input.as_double())) throw Failure("infinity has no integer");
    number = truncate(input.as_double());
  } else if (input.is_number()) {
    number = input.as_int();
  }
  return number ? Value(*number) : bound.value_or(0, Value(int64_t{0}));
}

Value to_float(Budget&, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("float", arguments, {"default"});
  if (input.is_undefined()) throw Failure(input.undefined_reason());
  if (input.is_number()) return Value(input.as_double());
  const auto number = input.is_string() ? parse_float(input.as_string()) : std::nullopt;
  return number ? Value(*number) : bound.value_or(0, Value(0.0));
}

Value absolute(Budget&, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("abs", arguments, {});
  if (input.is_float()) return Value(std::fabs(input.as_double()));
  if (!input.is_number()) throw Failure("abs needs a number, not " + input.type_name());
  return input.as_int() < 0 ? negate(input) : Value(input.as_int());
}

// Exact halves go to the even neighbour, as in Python; printf rounds the exact binary value.
double round_half_even(double number, int precision) {
  if (!std::isfinite(number)) return number;
  char digits[512];
  std::snprintf(digits, sizeof digits, "%.*f", precision, number);
  return std::strtod(digits, nullptr);
}

Value round_number(Budget&, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("round", arguments, {"precision", "method"});
  const int64_t precision = bound.integer_or(0, 0);
  const std::string method = bound.text_or(1, "common");
  if (!input.is_number()) throw Failure("round needs a number, not " + input.type_name());
  if (precision < 0 || precision > 100) throw Failure("round supports a precision from 0 to 100");
  if (method == "common") {
    if (!input.is_float()) return Value(input.as_int());
    return Value(round_half_even(input.as_double(), static_cast<int>(precision)));
  }
  if (method != "ceil" && method != "floor") throw Failure("round's method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.as_double() * scale;
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

}  // namespace

FilterFunction find_number_filter(std::string_view name) {
  if (name == "int") return to_int;
  if (name == "float") return to_float;
  if (name == "abs") return absolute;
  if (name == "round") return round_number;
  return nullptr;
}

}  // namespace skipper::jinja

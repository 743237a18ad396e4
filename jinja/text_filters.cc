// Filters that read or make text.
#include <algorithm>
#include <array>

#include "jinja/arguments.h"
#include "jinja/failure.h"
#include "jinja/filter_groups.h"
#include "jinja/sequence_access.h"
#include "jinja/text_replacing.h"
#include "jinja/text_splitting.h"
#include "jinja/unicode_text.h"
#include "jinja/value_json.h"
#include "jinja/value_text.h"

namespace skipper::jinja {
namespace {

Value trim(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("trim", arguments, {"chars"});
  const std::string text = to_text(budget, input);
  if (!bound.has(0) || bound.at(0).is_none()) return Value(strip_left(strip_right(text)));
  const std::string characters = bound.text(0);
  return Value(strip_left(strip_right(text, characters), characters));
}

template <std::string (*kConvert)(std::string_view)>
Value convert(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("a case filter", arguments, {});
  return Value(kConvert(to_text(budget, input)));
}

// Unlike str.title, a word starts after white space or one of - ( { [ < and nowhere else.
std::string title_words(std::string_view text) {
  std::string result;
  bool starts_word = true;
  for (std::string_view character : split_characters(text)) {
    const bool separates = is_space(character_at(character, 0).code) || std::string_view("-({[<").find(character) != text.npos;
    result += starts_word ? to_upper(character) : to_lower(character);
    starts_word = separates;
  }
  return result;
}

Value string(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("string", arguments, {});
  return input.is_string() ? input : Value(to_text(budget, input));
}

Value replace(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("replace", arguments, {"old", "new", "count"});
  const int64_t max_count = bound.has(2) && !bound.at(2).is_none() ? bound.integer_or(2, -1) : -1;
  return Value(replace_all(budget, to_text(budget, input),
                           {to_text(budget, bound.at(0)), to_text(budget, bound.at(1)), max_count}));
}

size_t spaces_size(int64_t width) { return static_cast<size_t>(std::max<int64_t>(width, 0)); }
std::string spaces(int64_t width) { return std::string(spaces_size(width), ' '); }

// Lines but the first and the empty ones are indented, unless `first` and `blank` ask for those too.
Value indent(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("indent", arguments, {"width", "first", "blank"});
  if (!input.is_string()) throw Failure("indent needs a str, not " + input.type_name());
  const bool width_is_text = bound.has(0) && bound.at(0).is_string();
  const int64_t width = width_is_text ? 0 : bound.integer_or(0, 4);
  budget.spend_text(spaces_size(width));
  const std::string indentation = width_is_text ? bound.text(0) : spaces(width);
  // The newline makes an empty text one line.
  const std::string text = to_text(budget, input) + "\n";
  std::vector<std::string> lines;
  for (std::string_view line : split_lines(text)) {
    const bool indented = lines.empty() ? bound.truth(1) : bound.truth(2) || !line.empty();
    budget.spend_text(indentation.size() + line.size());
    lines.emplace_back(indented ? indentation : std::string());
    lines.back().append(line);
  }
  return Value(join_texts(budget, lines, "\n"));
}

std::optional<std::string> json_indentation(const BoundArguments& bound, size_t index) {
  if (!bound.has(index) || bound.at(index).is_none()) return std::nullopt;
  if (bound.at(index).is_string()) return bound.text(index);
  const int64_t width = bound.integer_or(index, 0);
  if (width > 100) throw Failure("tojson indents by at most 100 characters");
  return spaces(width);
}

void set_separators(JsonStyle& style, const Value& separators) {
  const bool is_pair = separators.is_list() && separators.as_list()->items.size() == 2 &&
                       separators.as_list()->items[0].is_string() && separators.as_list()->items[1].is_string();
  if (!is_pair) throw Failure("tojson needs two texts as 'separators'");
  style.item_separator = separators.as_list()->items[0].as_string();
  style.key_separator = separators.as_list()->items[1].as_string();
}

// As Hugging Face defines it, not Jinja: no HTML escapes.
Value tojson(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  if (bound.truth(0)) style.non_ascii = JsonStyle::NonAscii::kEscaped;
  if (bound.truth(3)) style.key_order = JsonStyle::KeyOrder::kSorted;
  style.indentation = json_indentation(bound, 1);
  if (style.indentation) style.item_separator = std::string(1, ',');
  if (bound.has(2) && !bound.at(2).is_none()) set_separators(style, bound.at(2));
  return Value(value_to_json(budget, input, style));
}

struct TextFilter {
  std::string_view name;
  FilterFunction filter;
};
constexpr std::array<TextFilter, 10> kTextFilters = {{{"trim", trim},
                                             {"upper", convert<to_upper>},
                                             {"lower", convert<to_lower>},
                                             {"capitalize", convert<capitalize>},
                                             {"title", convert<title_words>},
                                             {"string", string},
                                             {"safe", string},  // nothing is ever escaped
                                             {"replace", replace},
                                             {"indent", indent},
                                             {"tojson", tojson}}};

}  // namespace

FilterFunction find_text_filter(std::string_view name) {
  const auto entry = std::find_if(kTextFilters.begin(), kTextFilters.end(), [&](const TextFilter& e) { return e.name == name; });
  return entry == kTextFilters.end() ? nullptr : entry->filter;
}

}  // namespace skipper::jinja

#include <algorithm>
#include <array>

#include "jinja/arguments.h"
#include "jinja/failure.h"
#include "jinja/methods.h"
#include "jinja/sequence_access.h"
#include "jinja/text_replacing.h"
#include "jinja/text_splitting.h"
#include "jinja/unicode_text.h"

namespace skipper::jinja {
namespace {

// The text of a method's object, whose size the method pays for.
const std::string& text_of(Budget& budget, const Value& object) {
  budget.spend_bytes(object.as_string().size());
  return object.as_string();
}

// strip(), strip(none) and strip("characters")
std::optional<std::string> characters_to_strip(const char* method, const Arguments& arguments) {
  const BoundArguments bound(method, arguments, {"chars"});
  if (!bound.has(0) || bound.at(0).is_none()) return std::nullopt;
  return bound.text(0);
}

Value strip(Budget& budget, const Value& object, const Arguments& arguments) {
  const std::string& text = text_of(budget, object);
  const auto characters = characters_to_strip("strip", arguments);
  if (!characters) return Value(strip_left(strip_right(text)));
  return Value(strip_left(strip_right(text, *characters), *characters));
}

Value lstrip(Budget& budget, const Value& object, const Arguments& arguments) {
  const std::string& text = text_of(budget, object);
  const auto characters = characters_to_strip("lstrip", arguments);
  return Value(characters ? strip_left(text, *characters) : strip_left(text));
}

Value rstrip(Budget& budget, const Value& object, const Arguments& arguments) {
  const std::string& text = text_of(budget, object);
  const auto characters = characters_to_strip("rstrip", arguments);
  return Value(characters ? strip_right(text, *characters) : strip_right(text));
}

Value list_of_texts(Budget& budget, const std::vector<std::string_view>& texts) {
  budget.spend_values(texts.size());
  std::vector<Value> items(texts.begin(), texts.end());
  return Value::list(std::move(items));
}

Value split_from(SplitFrom from, Budget& budget, const Value& object, const Arguments& arguments) {
  const std::string& text = text_of(budget, object);
  const BoundArguments bound("split", arguments, {"sep", "maxsplit"});
  const int64_t max_splits = bound.integer_or(1, -1);
  if (!bound.has(0) || bound.at(0).is_none()) return list_of_texts(budget, split_at_spaces(text, max_splits, from));
  const std::string separator = bound.text(0);
  if (separator.empty()) throw Failure("split needs a separator that is not empty");
  return list_of_texts(budget, split_at(text, separator, max_splits, from));
}

Value split(Budget& budget, const Value& object, const Arguments& arguments) {
  return split_from(SplitFrom::kLeft, budget, object, arguments);
}

Value rsplit(Budget& budget, const Value& object, const Arguments& arguments) {
  return split_from(SplitFrom::kRight, budget, object, arguments);
}

Value splitlines(Budget& budget, const Value& object, const Arguments& arguments) {
  const BoundArguments bound("splitlines", arguments, {});
  return list_of_texts(budget, split_lines(text_of(budget, object)));
}

// startswith and endswith take one text or a tuple of them.
template <typename Matches>
Value any_affix(const char* method, const Arguments& arguments, Matches matches) {
  const BoundArguments bound(method, arguments, {"affix"});
  if (!bound.at(0).is_list() || bound.at(0).as_list()->kind != SequenceKind::kTuple) return Value(matches(bound.text(0)));
  const std::vector<Value>& affixes = bound.at(0).as_list()->items;
  return Value(std::any_of(affixes.begin(), affixes.end(), [&](const Value& affix) {
    if (!affix.is_string()) throw Failure(std::string(method) + " needs a str or a tuple of them");
    return matches(affix.as_string());
  }));
}

Value startswith(Budget& budget, const Value& object, const Arguments& arguments) {
  const std::string& text = text_of(budget, object);
  return any_affix("startswith", arguments, [&](const std::string& prefix) { return text.starts_with(prefix); });
}

Value endswith(Budget& budget, const Value& object, const Arguments& arguments) {
  const std::string& text = text_of(budget, object);
  return any_affix("endswith", arguments, [&](const std::string& suffix) { return text.ends_with(suffix); });
}

Value removeprefix(Budget& budget, const Value& object, const Arguments& arguments) {
  const std::string& text = text_of(budget, object);
  const std::string prefix = BoundArguments("removeprefix", arguments, {"prefix"}).text(0);
  return text.starts_with(prefix) ? Value(text.substr(prefix.size())) : object;
}

Value removesuffix(Budget& budget, const Value& object, const Arguments& arguments) {
  const std::string& text = text_of(budget, object);
  const std::string suffix = BoundArguments("removesuffix", arguments, {"suffix"}).text(0);
  return text.ends_with(suffix) ? Value(text.substr(0, text.size() - suffix.size())) : object;
}

Value replace(Budget& budget, const Value& object, const Arguments& arguments) {
  const BoundArguments bound("replace", arguments, {"old", "new", "count"});
  return Value(replace_all(budget, text_of(budget, object), {bound.text(0), bound.text(1), bound.integer_or(2, -1)}));
}

// find and rfind count characters, not bytes.
Value character_index(std::string_view text, size_t offset) {
  return offset == text.npos ? Value(int64_t{-1}) : Value::size(count_characters(text.substr(0, offset)));
}

Value find(Budget& budget, const Value& object, const Arguments& arguments) {
  const std::string& text = text_of(budget, object);
  return character_index(text, text.find(BoundArguments("find", arguments, {"sub"}).text(0)));
}

Value rfind(Budget& budget, const Value& object, const Arguments& arguments) {
  const std::string& text = text_of(budget, object);
  return character_index(text, text.rfind(BoundArguments("rfind", arguments, {"sub"}).text(0)));
}

Value count(Budget& budget, const Value& object, const Arguments& arguments) {
  const std::string& text = text_of(budget, object);
  return Value(count_occurrences(text, BoundArguments("count", arguments, {"sub"}).text(0)));
}

Value join(Budget& budget, const Value& object, const Arguments& arguments) {
  const BoundArguments bound("join", arguments, {"iterable"});
  if (bound.at(0).is_undefined()) throw Failure(bound.at(0).undefined_reason());
  std::vector<std::string> texts;
  for (const Value& item : iterate(budget, bound.at(0))) {
    if (!item.is_string()) throw Failure("join needs items of type str, not " + item.type_name());
    texts.push_back(item.as_string());
  }
  return Value(join_texts(budget, texts, object.as_string()));
}

template <std::string (*kConvert)(std::string_view)>
Value convert(Budget& budget, const Value& object, const Arguments& arguments) {
  const BoundArguments bound("a case conversion", arguments, {});
  return Value(kConvert(text_of(budget, object)));
}

// True when there are characters and all are of the kind.
template <bool (*kIsOfKind)(uint32_t)>
Value all_characters(Budget& budget, const Value& object, const Arguments& arguments) {
  const BoundArguments bound("a character test", arguments, {});
  const std::string& text = text_of(budget, object);
  for (size_t offset = 0; offset < text.size();) {
    const Character character = character_at(text, offset);
    if (!kIsOfKind(character.code)) return Value(false);
    offset += character.size;
  }
  return Value(!text.empty());
}

bool is_ascii_digit(uint32_t code) { return code >= '0' && code <= '9'; }

struct MethodEntry {
  std::string_view name;
  Method method;
};
constexpr std::array<MethodEntry, 21> kMethods = {{{"strip", strip},
                                             {"lstrip", lstrip},
                                             {"rstrip", rstrip},
                                             {"split", split},
                                             {"rsplit", rsplit},
                                             {"splitlines", splitlines},
                                             {"startswith", startswith},
                                             {"endswith", endswith},
                                             {"removeprefix", removeprefix},
                                             {"removesuffix", removesuffix},
                                             {"replace", replace},
                                             {"find", find},
                                             {"rfind", rfind},
                                             {"count", count},
                                             {"join", join},
                                             {"upper", convert<to_upper>},
                                             {"lower", convert<to_lower>},
                                             {"capitalize", convert<capitalize>},
                                             {"title", convert<title_case>},
                                             {"isdigit", all_characters<is_ascii_digit>},
                                             {"isspace", all_characters<is_space>}}};

}  // namespace

Method find_string_method(std::string_view name) {
  const auto entry = std::find_if(kMethods.begin(), kMethods.end(), [&](const MethodEntry& e) { return e.name == name; });
  return entry == kMethods.end() ? nullptr : entry->method;
}

}  // namespace skipper::jinja

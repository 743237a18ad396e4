// translate_oniguruma_pattern of regex_splitter.h.
#include <cctype>
#include <map>

#include "base/error.h"
#include "processor/regex_splitter.h"

namespace skipper {
namespace {

// Items of a character class. White_Space of Unicode without U+180E, which PCRE2 counts as a space; \w with the marks and
// connectors that PCRE2 10.42 leaves out.
const std::map<char, std::string> kClassItems = {
    {'s', R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})"},
    {'S', R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
          R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})"},
    {'w', R"(\p{L}\p{M}\p{Nd}\p{Pc})"},
    {'d', R"(\p{Nd})"},
    {'D', R"(\P{Nd})"},
};

class Translator {
 public:
  Translator(const std::string& pattern, const std::string& origin) : pattern_(pattern), origin_(origin) {}

  std::string run() {
    while (position_ < pattern_.size()) {
      if (pattern_[position_] == '\\') {
        translate_escape();
      } else if (in_class_) {
        translate_class_character();
      } else {
        translate_plain_character();
      }
    }
    return result_;
  }

 private:
  [[noreturn]] void refuse(const std::string& construct) const {
    throw InvalidFile(origin_ + ": \"" + pattern_ + "\": " + construct + " at offset " + std::to_string(position_) +
                      " is not supported");
  }

  bool starts_with(std::string_view text) const { return pattern_.compare(position_, text.size(), text) == 0; }

  void copy(size_t length) {
    result_.append(pattern_, position_, length);
    position_ += length;
  }

  void translate_plain_character() {
    // After a counted repeat Oniguruma repeats again where PCRE2 becomes possessive.
    if (starts_with("}+")) refuse("a repeat of a repeat");
    if (pattern_[position_] == '[') {
      in_class_ = true;
      copy(starts_with("[^") ? 2 : 1);
    } else {
      copy(1);
    }
  }

  void translate_class_character() {
    if (pattern_[position_] == '[') refuse("a class within a class");
    if (starts_with("&&")) refuse("an intersection of classes");
    if (pattern_[position_] == ']') in_class_ = false;
    copy(1);
  }

  void translate_escape() {
    if (position_ + 1 == pattern_.size()) refuse("a backslash at the end");
    const char name = pattern_[position_ + 1];
    if (name == 'p' || name == 'P') return copy_property();
    const bool is_letter_or_digit = std::isalnum(static_cast<unsigned char>(name)) != 0;
    const bool same_in_both = !is_letter_or_digit || name == 'r' || name == 'n' || name == 't' || name == 'f' ||
                              (name == 'x' && starts_with("\\x{"));
    if (same_in_both) return copy(2);
    expand_class_name(name);
  }

  void copy_property() {
    const size_t close = pattern_.find('}', position_);
    if (pattern_.compare(position_ + 2, 1, "{") != 0 || close == std::string::npos) refuse("a property without braces");
    copy(close + 1 - position_);
  }

  void expand_class_name(char name) {
    const bool negated_word = name == 'W';
    const auto items = kClassItems.find(negated_word ? 'w' : name);
    if (items == kClassItems.end() || (negated_word && in_class_)) refuse(std::string("\\") + name);
    if (in_class_) {
      result_ += items->second;
    } else {
      result_ += (negated_word ? "[^" : "[") + items->second + "]";
    }
    position_ += 2;
  }

  const std::string& pattern_;
  const std::string& origin_;
  size_t position_ = 0;
  bool in_class_ = false;
  std::string result_;
};

}  // namespace

std::string translate_oniguruma_pattern(const std::string& pattern, const std::string& origin) {
  return Translator(pattern, origin).run();
}

}  // namespace skipper

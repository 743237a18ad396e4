#include "jinja/lexer.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "jinja/failure.h"
#include "jinja/string_literal.h"
#include "jinja/template_error.h"
#include "jinja/unicode_text.h"

namespace skipper::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool is_name_part(char c) { return is_name_start(c) || is_digit(c); }

// \r\n and \r become \n; one newline at the end is dropped.
std::string normalize_newlines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

bool is_blank(std::string_view text) { return !text.empty() && strip_left(text).empty(); }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {}

  std::vector<Token> run() {
    while (offset_ < source_.size()) {
      const size_t tag = find_tag();
      add_text(tag);
      if (offset_ == source_.size()) break;
      const char kind = source_[offset_ + 1];
      if (kind == '#') {
        skip_comment();
      } else {
        add_tag(kind == '{' ? TokenKind::kOutputBegin : TokenKind::kTagBegin);
      }
    }
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const { throw TemplateError(message, line_); }

  std::string_view rest() const { return std::string_view(source_).substr(offset_); }
  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void advance(size_t count) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(offset_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(offset_ + count), '\n'));
    offset_ += count;
  }

  // Where the next {{, {% or {# starts; the end of the source when there is none.
  size_t find_tag() const {
    for (size_t at = source_.find('{', offset_); at != std::string::npos; at = source_.find('{', at + 1)) {
      const char next = at + 1 < source_.size() ? source_[at + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') return at;
    }
    return source_.size();
  }

  // The text before the tag at `tag`, trimmed as the tag's sign and kind ask for.
  void add_text(size_t tag) {
    std::string_view text = rest().substr(0, tag - offset_);
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const bool is_output = tag + 1 < source_.size() && source_[tag + 1] == '{';
    if (tag < source_.size() && sign == '-') {
      text = strip_right(text);
    } else if (tag < source_.size() && sign != '+' && !is_output) {
      text = without_indentation(text);
    }
    if (!text.empty()) add(TokenKind::kText, std::string(text));
    advance(tag - offset_);
  }

  // lstrip_blocks: white space between the start of the line and a tag is not printed.
  std::string_view without_indentation(std::string_view text) const {
    const size_t newline = text.rfind('\n');
    const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
    const bool at_line_start = line_start > 0 || offset_ == 0 || source_[offset_ - 1] == '\n';
    return at_line_start && is_blank(text.substr(line_start)) ? text.substr(0, line_start) : text;
  }

  // Length of "{%" with its sign.
  size_t opening_size() const {
    const char sign = offset_ + 2 < source_.size() ? source_[offset_ + 2] : '\0';
    return sign == '-' || sign == '+' ? 3 : 2;
  }

  // Length of the closing of a tag or comment ("%}" or "#}") at `text`'s start with what its sign takes away: "-%}" all
  // white space after it, "%}" one newline (trim_blocks), "+%}" nothing. 0 when `text` does not start with it.
  static size_t closing_size(std::string_view text, std::string_view delimiter) {
    const bool is_output = delimiter == "}}";
    if (text.starts_with('-') && text.substr(1).starts_with(delimiter)) {
      const std::string_view after = text.substr(3);
      return 3 + (after.size() - strip_left(after).size());
    }
    if (!is_output && text.starts_with('+') && text.substr(1).starts_with(delimiter)) return 3;
    if (!text.starts_with(delimiter)) return 0;
    return !is_output && text.substr(2).starts_with('\n') ? 3 : 2;
  }

  void skip_comment() {
    // "{#-#}" is a sign and an end, not an end with a sign.
    const size_t opening = opening_size();
    for (size_t at = opening; at < rest().size(); ++at) {
      if (const size_t size = closing_size(rest().substr(at), "#}")) return advance(at + size);
    }
    fail("a comment is not closed; write #} at its end");
  }

  void add_tag(TokenKind opening) {
    const bool is_output = opening == TokenKind::kOutputBegin;
    const std::string_view delimiter = is_output ? "}}" : "%}";
    add(opening, "");
    advance(opening_size());
    if (!is_output && starts_raw_block()) fail("raw blocks are not supported");
    std::string open_brackets;
    while (offset_ < source_.size()) {
      // Inside brackets "}}" closes two of them, not the tag.
      const size_t closing = open_brackets.empty() ? closing_size(rest(), delimiter) : 0;
      if (closing != 0) {
        add(is_output ? TokenKind::kOutputEnd : TokenKind::kTagEnd, "");
        return advance(closing);
      }
      add_expression_token(open_brackets);
    }
    fail(is_output ? "{{ is not closed; write }} at its end" : "{% is not closed; write %} at its end");
  }

  // What follows raw is not template syntax, so it must be refused before it is read as such.
  bool starts_raw_block() const {
    const std::string_view name = strip_left(rest());
    return name.starts_with("raw") && (name.size() == 3 || !is_name_part(name[3]));
  }

  void add_expression_token(std::string& open_brackets) {
    const Character character = character_at(source_, offset_);
    if (is_space(character.code)) return advance(character.size);
    const char first = source_[offset_];
    if (is_digit(first)) return add_number();
    if (is_name_start(first)) return add_name();
    if (first == '\'' || first == '"') return add_string(first);
    add_operator(open_brackets);
  }

  void add_name() {
    size_t size = 1;
    while (size < rest().size() && is_name_part(rest()[size])) ++size;
    add(TokenKind::kName, std::string(rest().substr(0, size)));
    advance(size);
  }

  // Digits with single underscores between them, from `at` on; returns where they end.
  size_t skip_digits(size_t at) const {
    const std::string_view text = rest();
    while (at < text.size() && (is_digit(text[at]) || (text[at] == '_' && at + 1 < text.size() && is_digit(text[at + 1]))))
      ++at;
    return at;
  }

  void add_number() {
    const std::string_view text = rest();
    const auto digit_at = [&](size_t at) { return at < text.size() && is_digit(text[at]); };
    size_t end = skip_digits(0);
    bool is_float = false;
    const bool after_dot = !tokens_.empty() && tokens_.back().text == ".";  // x.0.1 is two subscripts
    if (!after_dot && end < text.size() && text[end] == '.' && digit_at(end + 1)) {
      end = skip_digits(end + 1);
      is_float = true;
    }
    if (!after_dot && end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
      const size_t digits = end + 1 + (end + 1 < text.size() && (text[end + 1] == '+' || text[end + 1] == '-') ? 1 : 0);
      if (digit_at(digits)) {
        end = skip_digits(digits);
        is_float = true;
      }
    }
    std::string number(text.substr(0, end));
    std::erase(number, '_');
    if (!is_float && number.size() > 1 && number[0] == '0' && number.find_first_not_of('0') != std::string::npos) {
      fail("the number " + number + " starts with 0");
    }
    add(is_float ? TokenKind::kFloat : TokenKind::kInteger, std::move(number));
    advance(end);
  }

  void add_string(char quote) {
    size_t end = 1;
    while (end < rest().size() && rest()[end] != quote) end += rest()[end] == '\\' ? 2 : 1;
    if (end >= rest().size()) fail("a string is not closed");
    try {
      add(TokenKind::kString, unescape_string(rest().substr(1, end - 1)));
    } catch (const Failure& failure) {
      fail(failure.what());
    }
    advance(end + 1);
  }

  void add_operator(std::string& open_brackets) {
    // Longer ones first.
    static constexpr std::array<std::string_view, 26> kOperators = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]",
        "(",  ")",  "{",  "}",  ">",  "<",  "=", ".", ":", "|", ",", ";"};
    for (std::string_view candidate : kOperators) {
      if (!rest().starts_with(candidate)) continue;
      balance(candidate, open_brackets);
      add(TokenKind::kOperator, std::string(candidate));
      return advance(candidate.size());
    }
    fail("unexpected character '" + std::string(rest().substr(0, character_at(source_, offset_).size)) + "'");
  }

  void balance(std::string_view token, std::string& open_brackets) const {
    if (token == "(") open_brackets += ')';
    if (token == "[") open_brackets += ']';
    if (token == "{") open_brackets += '}';
    if (token != ")" && token != "]" && token != "}") return;
    if (open_brackets.empty() || open_brackets.back() != token[0]) fail("unexpected '" + std::string(token) + "'");
    open_brackets.pop_back();
  }

  const std::string source_;
  size_t offset_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace skipper::jinja

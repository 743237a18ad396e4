// A position in a template's tokens with the questions that the parsers ask.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/lexer.h"

namespace skipper::jinja {

class TokenCursor {
 public:
  explicit TokenCursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& after_current() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  // Returns the current token and goes on; stays at kEnd.
  const Token& next();

  bool at(TokenKind kind) const { return current().kind == kind; }
  bool at_operator(std::string_view symbol) const { return at(TokenKind::kOperator) && current().text == symbol; }
  bool at_name(std::string_view name) const { return at(TokenKind::kName) && current().text == name; }

  // Goes past the operator or name if it is the current token.
  bool skip_operator(std::string_view symbol);
  bool skip_name(std::string_view name);

  // Goes past the token or throws TemplateError naming what is there instead.
  void expect_operator(std::string_view symbol);
  void expect_name(std::string_view name);
  void expect(TokenKind kind);
  std::string expect_any_name();

  [[noreturn]] void fail(const std::string& message) const;
  [[noreturn]] void fail_unsupported(const std::string& construct) const;
  // "expected <what>, found 'x'"
  [[noreturn]] void fail_expected(const std::string& what) const;

 private:
  std::vector<Token> tokens_;
  size_t position_ = 0;
};

}  // namespace skipper::jinja

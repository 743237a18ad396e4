#include "jinja/token_cursor.h"

#include "jinja/template_error.h"

namespace skipper::jinja {
namespace {

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText: return "text";
    case TokenKind::kOutputBegin: return "'{{'";
    case TokenKind::kOutputEnd: return "'}}'";
    case TokenKind::kTagBegin: return "'{%'";
    case TokenKind::kTagEnd: return "'%}'";
    case TokenKind::kString: return "a string";
    case TokenKind::kEnd: return "the end of the template";
    default: return "'" + token.text + "'";
  }
}

Token sample(TokenKind kind) { return {kind, "", 0}; }

}  // namespace

const Token& TokenCursor::next() {
  const Token& token = current();
  if (position_ + 1 < tokens_.size()) ++position_;
  return token;
}

bool TokenCursor::skip_operator(std::string_view symbol) {
  if (!at_operator(symbol)) return false;
  next();
  return true;
}

bool TokenCursor::skip_name(std::string_view name) {
  if (!at_name(name)) return false;
  next();
  return true;
}

void TokenCursor::expect_operator(std::string_view symbol) {
  if (!skip_operator(symbol)) fail_expected("'" + std::string(symbol) + "'");
}

void TokenCursor::expect_name(std::string_view name) {
  if (!skip_name(name)) fail_expected("'" + std::string(name) + "'");
}

void TokenCursor::expect(TokenKind kind) {
  if (!at(kind)) fail_expected(describe(sample(kind)));
  next();
}

std::string TokenCursor::expect_any_name() {
  if (!at(TokenKind::kName)) fail_expected("a name");
  return next().text;
}

void TokenCursor::fail(const std::string& message) const { throw TemplateError(message, line()); }

void TokenCursor::fail_unsupported(const std::string& construct) const { fail(construct + " is not supported"); }

void TokenCursor::fail_expected(const std::string& what) const {
  fail("expected " + what + ", found " + describe(current()));
}

}  // namespace skipper::jinja

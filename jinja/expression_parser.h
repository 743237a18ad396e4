// Tokens → the syntax tree of expressions, with Jinja's precedences.
#pragma once

#include <optional>
#include <string>

#include "jinja/ast.h"
#include "jinja/token_cursor.h"

namespace skipper::jinja {

// From loosest to tightest: if else · or · and · not · comparisons · + - · ~ · * / // % · ** · signs, filters, tests ·
// attributes, subscripts, calls. Throws TemplateError.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenCursor& tokens) : tokens_(tokens) {}

  ExpressionPtr parse();  // "a if b else c" included
  // One expression, or a tuple of them without parentheses.
  ExpressionPtr parse_tuple();
  // The same without "if else", where a statement has its own use for "if".
  ExpressionPtr parse_tuple_without_condition();
  CallArguments parse_arguments();  // from "(" to ")"

  // True since the last reset when a macro's body names `caller`.
  bool saw_caller() const { return saw_caller_; }
  void set_saw_caller(bool saw) { saw_caller_ = saw; }

 private:
  class Nesting;
  using Level = ExpressionPtr (ExpressionParser::*)();

  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_comparison();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concatenation();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary();
  ExpressionPtr parse_unfiltered_unary();
  ExpressionPtr parse_primary();
  ExpressionPtr parse_name_or_constant();
  ExpressionPtr parse_string();
  ExpressionPtr parse_number();
  ExpressionPtr parse_parenthesized();
  ExpressionPtr parse_list();
  ExpressionPtr parse_map();
  ExpressionPtr parse_postfix(ExpressionPtr object);
  ExpressionPtr parse_filters_and_tests(ExpressionPtr input);
  ExpressionPtr parse_attribute(ExpressionPtr object);
  ExpressionPtr parse_subscript(ExpressionPtr object);
  ExpressionPtr parse_slice(ExpressionPtr object, ExpressionPtr start);
  ExpressionPtr parse_filter(ExpressionPtr input);
  ExpressionPtr parse_test(ExpressionPtr input);
  CallArguments parse_test_arguments();
  ExpressionPtr parse_tuple_of(Level item);
  std::optional<ComparisonOperator> skip_comparison_operator();
  bool at_end_of_tuple() const;

  TokenCursor& tokens_;
  int nesting_ = 0;
  bool saw_caller_ = false;
};

}  // namespace skipper::jinja

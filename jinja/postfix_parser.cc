// What follows a value: attributes, subscripts, calls, filters and tests.
#include "jinja/expression_nodes.h"
#include "jinja/expression_parser.h"
#include "jinja/loop_attributes.h"

namespace skipper::jinja {

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr object) {
  while (true) {
    if (tokens_.at_operator(".")) {
      object = parse_attribute(std::move(object));
    } else if (tokens_.at_operator("[")) {
      object = parse_subscript(std::move(object));
    } else if (tokens_.at_operator("(")) {
      const int line = tokens_.line();
      object = make_expression(Call{std::move(object), parse_arguments()}, line);
    } else {
      return object;
    }
  }
}

ExpressionPtr ExpressionParser::parse_filters_and_tests(ExpressionPtr input) {
  while (true) {
    if (tokens_.at_operator("|")) {
      input = parse_filter(std::move(input));
    } else if (tokens_.at_name("is")) {
      input = parse_test(std::move(input));
    } else if (tokens_.at_operator("(")) {
      const int line = tokens_.line();
      input = make_expression(Call{std::move(input), parse_arguments()}, line);
    } else {
      return input;
    }
  }
}

ExpressionPtr ExpressionParser::parse_attribute(ExpressionPtr object) {
  const int line = tokens_.next().line;
  if (tokens_.at(TokenKind::kInteger)) return make_expression(Subscript{std::move(object), parse_number()}, line);
  const std::string name = tokens_.expect_any_name();
  if (name.starts_with("__")) tokens_.fail_unsupported("the private attribute ." + name);
  const auto* variable = std::get_if<Name>(&object->node);
  if (variable != nullptr && variable->name == "loop" && !is_loop_attribute(name)) {
    tokens_.fail_unsupported("loop." + name);
  }
  return make_expression(Attribute{std::move(object), name}, line);
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr object) {
  const int line = tokens_.next().line;
  ExpressionPtr key = tokens_.at_operator(":") ? nullptr : parse();
  if (tokens_.at_operator(":")) return parse_slice(std::move(object), std::move(key));
  if (tokens_.at_operator(",")) tokens_.fail_unsupported("a subscript with several keys");
  tokens_.expect_operator("]");
  return make_expression(Subscript{std::move(object), std::move(key)}, line);
}

// At the first colon.
ExpressionPtr ExpressionParser::parse_slice(ExpressionPtr object, ExpressionPtr start) {
  const int line = tokens_.next().line;
  const auto parse_bound = [this]() -> ExpressionPtr {
    return tokens_.at_operator(":") || tokens_.at_operator("]") ? nullptr : parse();
  };
  ExpressionPtr stop = parse_bound();
  ExpressionPtr step = tokens_.skip_operator(":") ? parse_bound() : nullptr;
  if (tokens_.at_operator(",")) tokens_.fail_unsupported("a subscript with several keys");
  tokens_.expect_operator("]");
  return make_expression(Slice{std::move(object), std::move(start), std::move(stop), std::move(step)}, line);
}

CallArguments ExpressionParser::parse_arguments() {
  tokens_.expect_operator("(");
  CallArguments arguments;
  bool first = true;
  while (!tokens_.skip_operator(")")) {
    if (!first) tokens_.expect_operator(",");
    first = false;
    if (tokens_.skip_operator(")")) break;
    if (tokens_.at_operator("*") || tokens_.at_operator("**")) tokens_.fail_unsupported("argument unpacking with *");
    const bool is_named = tokens_.at(TokenKind::kName) && tokens_.after_current().kind == TokenKind::kOperator &&
                          tokens_.after_current().text == "=";
    if (is_named) {
      std::string name = tokens_.expect_any_name();
      tokens_.next();
      arguments.named.emplace_back(std::move(name), parse());
    } else {
      if (!arguments.named.empty()) tokens_.fail("a positional argument follows a named one");
      arguments.positional.push_back(parse());
    }
  }
  return arguments;
}

ExpressionPtr ExpressionParser::parse_filter(ExpressionPtr input) {
  const int line = tokens_.next().line;
  const std::string name = tokens_.expect_any_name();
  const FilterFunction filter = find_filter(name);
  if (filter == nullptr) tokens_.fail_unsupported("the filter '" + name + "'");
  CallArguments arguments;
  if (tokens_.at_operator("(")) arguments = parse_arguments();
  return make_expression(FilterCall{std::move(input), filter, std::move(arguments)}, line);
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr input) {
  const int line = tokens_.next().line;
  const bool negated = tokens_.skip_name("not");
  const std::string name = tokens_.expect_any_name();
  const TestFunction test = find_test(name);
  if (test == nullptr) tokens_.fail_unsupported("the test '" + name + "'");
  CallArguments arguments = parse_test_arguments();
  return make_expression(TestCall{std::move(input), test, std::move(arguments), negated}, line);
}

// "(a, b)" or one value without parentheses, as in `x is divisibleby 3`.
CallArguments ExpressionParser::parse_test_arguments() {
  if (tokens_.at_operator("(")) return parse_arguments();
  if (tokens_.at_name("is")) tokens_.fail("tests cannot be chained with is");
  CallArguments arguments;
  const bool at_keyword = tokens_.at_name("else") || tokens_.at_name("or") || tokens_.at_name("and");
  const bool at_value = tokens_.at(TokenKind::kName) || tokens_.at(TokenKind::kString) ||
                        tokens_.at(TokenKind::kInteger) || tokens_.at(TokenKind::kFloat) || tokens_.at_operator("[") ||
                        tokens_.at_operator("{");
  if (at_value && !at_keyword) arguments.positional.push_back(parse_postfix(parse_primary()));
  return arguments;
}

}  // namespace skipper::jinja

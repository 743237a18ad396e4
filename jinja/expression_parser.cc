#include "jinja/expression_parser.h"

#include <array>
#include <charconv>

#include "jinja/expression_nodes.h"
#include "jinja/loop_attributes.h"

namespace skipper::jinja {
namespace {

constexpr int kMaxParserNesting = 100;

struct BinarySymbol {
  std::string_view symbol;
  BinaryOperator op;
};
constexpr std::array<BinarySymbol, 2> kSumOperators = {{{"+", BinaryOperator::kAdd}, {"-", BinaryOperator::kSubtract}}};
constexpr std::array<BinarySymbol, 4> kProductOperators = {{{"*", BinaryOperator::kMultiply},
                                                            {"/", BinaryOperator::kDivide},
                                                            {"//", BinaryOperator::kFloorDivide},
                                                            {"%", BinaryOperator::kModulo}}};

template <size_t N>
std::optional<BinaryOperator> skip_binary_operator(TokenCursor& tokens, const std::array<BinarySymbol, N>& operators) {
  for (const BinarySymbol& candidate : operators) {
    if (tokens.skip_operator(candidate.symbol)) return candidate.op;
  }
  return std::nullopt;
}

}  // namespace

// Bounds recursion over parentheses, brackets and prefix operators.
class ExpressionParser::Nesting {
 public:
  explicit Nesting(ExpressionParser& parser) : parser_(parser) {
    if (++parser_.nesting_ > kMaxParserNesting) {
      --parser_.nesting_;
      parser_.tokens_.fail("an expression nests more than " + std::to_string(kMaxParserNesting) + " levels deep");
    }
  }
  ~Nesting() { --parser_.nesting_; }

 private:
  ExpressionParser& parser_;
};

ExpressionPtr ExpressionParser::parse() {
  const Nesting nesting(*this);
  const int line = tokens_.line();
  ExpressionPtr value = parse_or();
  while (tokens_.skip_name("if")) {
    ExpressionPtr condition = parse_or();
    ExpressionPtr otherwise = tokens_.skip_name("else") ? parse() : nullptr;
    value = make_expression(Conditional{std::move(condition), std::move(value), std::move(otherwise)}, line);
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_tuple() { return parse_tuple_of(&ExpressionParser::parse); }

ExpressionPtr ExpressionParser::parse_tuple_without_condition() { return parse_tuple_of(&ExpressionParser::parse_or); }

ExpressionPtr ExpressionParser::parse_tuple_of(Level item) {
  const int line = tokens_.line();
  ExpressionPtr first = (this->*item)();
  if (!tokens_.at_operator(",")) return first;
  std::vector<ExpressionPtr> items;
  items.push_back(std::move(first));
  while (tokens_.skip_operator(",")) {
    if (at_end_of_tuple()) break;
    items.push_back((this->*item)());
  }
  return make_expression(ListLiteral{std::move(items), SequenceKind::kTuple}, line);
}

bool ExpressionParser::at_end_of_tuple() const {
  return tokens_.at(TokenKind::kOutputEnd) || tokens_.at(TokenKind::kTagEnd) || tokens_.at_operator(")");
}

ExpressionPtr ExpressionParser::parse_or() {
  const Nesting nesting(*this);
  const int line = tokens_.line();
  ExpressionPtr left = parse_and();
  while (tokens_.skip_name("or")) {
    left = make_expression(Logical{LogicalOperator::kOr, std::move(left), parse_and()}, line);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_and() {
  const int line = tokens_.line();
  ExpressionPtr left = parse_not();
  while (tokens_.skip_name("and")) {
    left = make_expression(Logical{LogicalOperator::kAnd, std::move(left), parse_not()}, line);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  const Nesting nesting(*this);
  const int line = tokens_.line();
  if (!tokens_.skip_name("not")) return parse_comparison();
  return make_expression(Unary{UnaryOperator::kNot, parse_not()}, line);
}

ExpressionPtr ExpressionParser::parse_comparison() {
  const int line = tokens_.line();
  ExpressionPtr first = parse_sum();
  std::vector<std::pair<ComparisonOperator, ExpressionPtr>> rest;
  while (const auto op = skip_comparison_operator()) rest.emplace_back(*op, parse_sum());
  if (rest.empty()) return first;
  return make_expression(Comparison{std::move(first), std::move(rest)}, line);
}

std::optional<ComparisonOperator> ExpressionParser::skip_comparison_operator() {
  if (tokens_.skip_operator("==")) return ComparisonOperator::kEqual;
  if (tokens_.skip_operator("!=")) return ComparisonOperator::kNotEqual;
  if (tokens_.skip_operator("<=")) return ComparisonOperator::kLessOrEqual;
  if (tokens_.skip_operator(">=")) return ComparisonOperator::kGreaterOrEqual;
  if (tokens_.skip_operator("<")) return ComparisonOperator::kLess;
  if (tokens_.skip_operator(">")) return ComparisonOperator::kGreater;
  if (tokens_.skip_name("in")) return ComparisonOperator::kIn;
  const bool not_in = tokens_.at_name("not") && tokens_.after_current().kind == TokenKind::kName &&
                      tokens_.after_current().text == "in";
  if (!not_in) return std::nullopt;
  tokens_.next();
  tokens_.next();
  return ComparisonOperator::kNotIn;
}

ExpressionPtr ExpressionParser::parse_sum() {
  const int line = tokens_.line();
  ExpressionPtr left = parse_concatenation();
  while (const auto op = skip_binary_operator(tokens_, kSumOperators)) {
    left = make_expression(Binary{*op, std::move(left), parse_concatenation()}, line);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_concatenation() {
  const int line = tokens_.line();
  ExpressionPtr first = parse_product();
  if (!tokens_.at_operator("~")) return first;
  std::vector<ExpressionPtr> parts;
  parts.push_back(std::move(first));
  while (tokens_.skip_operator("~")) parts.push_back(parse_product());
  return make_expression(Concatenation{std::move(parts)}, line);
}

ExpressionPtr ExpressionParser::parse_product() {
  const int line = tokens_.line();
  ExpressionPtr left = parse_power();
  while (const auto op = skip_binary_operator(tokens_, kProductOperators)) {
    left = make_expression(Binary{*op, std::move(left), parse_power()}, line);
  }
  return left;
}

// Jinja's ** groups from the left: 2 ** 3 ** 2 is 64.
ExpressionPtr ExpressionParser::parse_power() {
  const int line = tokens_.line();
  ExpressionPtr left = parse_unary();
  while (tokens_.skip_operator("**")) {
    left = make_expression(Binary{BinaryOperator::kPower, std::move(left), parse_unary()}, line);
  }
  return left;
}

// A filter after a sign applies to the signed value: -1|abs is 1.
ExpressionPtr ExpressionParser::parse_unary() {
  return parse_filters_and_tests(parse_unfiltered_unary());
}

ExpressionPtr ExpressionParser::parse_unfiltered_unary() {
  const Nesting nesting(*this);
  const int line = tokens_.line();
  if (tokens_.skip_operator("-")) {
    return parse_postfix(make_expression(Unary{UnaryOperator::kMinus, parse_unfiltered_unary()}, line));
  }
  if (tokens_.skip_operator("+")) {
    return parse_postfix(make_expression(Unary{UnaryOperator::kPlus, parse_unfiltered_unary()}, line));
  }
  return parse_postfix(parse_primary());
}

ExpressionPtr ExpressionParser::parse_primary() {
  switch (tokens_.current().kind) {
    case TokenKind::kName: return parse_name_or_constant();
    case TokenKind::kString: return parse_string();
    case TokenKind::kInteger:
    case TokenKind::kFloat: return parse_number();
    default: break;
  }
  if (tokens_.at_operator("(")) return parse_parenthesized();
  if (tokens_.at_operator("[")) return parse_list();
  if (tokens_.at_operator("{")) return parse_map();
  tokens_.fail_expected("an expression");
}

ExpressionPtr ExpressionParser::parse_name_or_constant() {
  const int line = tokens_.line();
  const std::string name = tokens_.next().text;
  if (name == "true" || name == "True") return make_expression(Literal{Value(true)}, line);
  if (name == "false" || name == "False") return make_expression(Literal{Value(false)}, line);
  if (name == "none" || name == "None") return make_expression(Literal{Value()}, line);
  if (name == "varargs" || name == "kwargs") tokens_.fail_unsupported("the macro variable " + name);
  if (name == "caller") saw_caller_ = true;
  return make_expression(Name{name}, line);
}

// Strings side by side are one string.
ExpressionPtr ExpressionParser::parse_string() {
  const int line = tokens_.line();
  std::string text;
  while (tokens_.at(TokenKind::kString)) text += tokens_.next().text;
  return make_expression(Literal{Value(std::move(text))}, line);
}

ExpressionPtr ExpressionParser::parse_number() {
  const Token& token = tokens_.current();
  const char* end = token.text.data() + token.text.size();
  Value value;
  if (token.kind == TokenKind::kFloat) {
    double number = 0;
    std::from_chars(token.text.data(), end, number);
    value = Value(number);
  } else {
    int64_t number = 0;
    if (std::from_chars(token.text.data(), end, number).ec != std::errc()) {
      tokens_.fail("the number " + token.text + " does not fit into 64 bits");
    }
    value = Value(number);
  }
  const int line = tokens_.next().line;
  return make_expression(Literal{std::move(value)}, line);
}

ExpressionPtr ExpressionParser::parse_parenthesized() {
  const int line = tokens_.next().line;
  if (tokens_.skip_operator(")")) return make_expression(ListLiteral{{}, SequenceKind::kTuple}, line);
  ExpressionPtr value = parse_tuple();
  tokens_.expect_operator(")");
  return value;
}

ExpressionPtr ExpressionParser::parse_list() {
  const int line = tokens_.next().line;
  std::vector<ExpressionPtr> items;
  while (!tokens_.skip_operator("]")) {
    if (!items.empty()) tokens_.expect_operator(",");
    if (tokens_.skip_operator("]")) break;
    items.push_back(parse());
  }
  return make_expression(ListLiteral{std::move(items), SequenceKind::kList}, line);
}

ExpressionPtr ExpressionParser::parse_map() {
  const int line = tokens_.next().line;
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
  while (!tokens_.skip_operator("}")) {
    if (!entries.empty()) tokens_.expect_operator(",");
    if (tokens_.skip_operator("}")) break;
    ExpressionPtr key = parse();
    const auto* literal = std::get_if<Literal>(&key->node);
    if (literal != nullptr && !literal->value.is_string()) tokens_.fail_unsupported("a key that is not a string");
    tokens_.expect_operator(":");
    entries.emplace_back(std::move(key), parse());
  }
  return make_expression(MapLiteral{std::move(entries)}, line);
}

}  // namespace skipper::jinja

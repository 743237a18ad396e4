#include "jinja/expression_nodes.h"

#include <algorithm>

#include "jinja/template_error.h"

namespace skipper::jinja {
namespace {

int depth_of(const ExpressionPtr& expression) { return expression == nullptr ? 0 : expression->depth; }

template <typename... Operands>
int deepest(const Operands&... operands) {
  return std::max({0, depth_of(operands)...});
}

int deepest_of(const std::vector<ExpressionPtr>& expressions) {
  int depth = 0;
  for (const ExpressionPtr& expression : expressions) depth = std::max(depth, depth_of(expression));
  return depth;
}

int deepest_of(const CallArguments& arguments) {
  int depth = deepest_of(arguments.positional);
  for (const auto& [name, value] : arguments.named) depth = std::max(depth, depth_of(value));
  return depth;
}

int operand_depth(const Literal&) { return 0; }
int operand_depth(const Name&) { return 0; }
int operand_depth(const ListLiteral& node) { return deepest_of(node.items); }
int operand_depth(const MapLiteral& node) {
  int depth = 0;
  for (const auto& [key, value] : node.entries) depth = std::max(depth, deepest(key, value));
  return depth;
}
int operand_depth(const Unary& node) { return deepest(node.operand); }
int operand_depth(const Binary& node) { return deepest(node.left, node.right); }
int operand_depth(const Logical& node) { return deepest(node.left, node.right); }
int operand_depth(const Concatenation& node) { return deepest_of(node.parts); }
int operand_depth(const Comparison& node) {
  int depth = depth_of(node.first);
  for (const auto& [op, operand] : node.rest) depth = std::max(depth, depth_of(operand));
  return depth;
}
int operand_depth(const Conditional& node) { return deepest(node.condition, node.if_true, node.if_false); }
int operand_depth(const Attribute& node) { return deepest(node.object); }
int operand_depth(const Subscript& node) { return deepest(node.object, node.key); }
int operand_depth(const Slice& node) { return deepest(node.object, node.start, node.stop, node.step); }
int operand_depth(const Call& node) { return std::max(depth_of(node.callee), deepest_of(node.arguments)); }
int operand_depth(const FilterCall& node) { return std::max(depth_of(node.input), deepest_of(node.arguments)); }
int operand_depth(const TestCall& node) { return std::max(depth_of(node.input), deepest_of(node.arguments)); }

}  // namespace

template <typename Node>
ExpressionPtr make_expression(Node node, int line) {
  const int depth = 1 + operand_depth(node);
  if (depth > kMaxExpressionDepth) {
    throw TemplateError("an expression nests more than " + std::to_string(kMaxExpressionDepth) + " levels deep", line);
  }
  return std::make_unique<const Expression>(Expression{line, depth, std::move(node)});
}

template ExpressionPtr make_expression(Literal, int);
template ExpressionPtr make_expression(Name, int);
template ExpressionPtr make_expression(ListLiteral, int);
template ExpressionPtr make_expression(MapLiteral, int);
template ExpressionPtr make_expression(Unary, int);
template ExpressionPtr make_expression(Binary, int);
template ExpressionPtr make_expression(Logical, int);
template ExpressionPtr make_expression(Concatenation, int);
template ExpressionPtr make_expression(Comparison, int);
template ExpressionPtr make_expression(Conditional, int);
template ExpressionPtr make_expression(Attribute, int);
template ExpressionPtr make_expression(Subscript, int);
template ExpressionPtr make_expression(Slice, int);
template ExpressionPtr make_expression(Call, int);
template ExpressionPtr make_expression(FilterCall, int);
template ExpressionPtr make_expression(TestCall, int);

}  // namespace skipper::jinja

// Makes expression nodes and bounds how deep they nest, so that walking or freeing a tree cannot overflow the stack.
#pragma once

#include "jinja/ast.h"

namespace skipper::jinja {

inline constexpr int kMaxExpressionDepth = 200;

// Throws TemplateError when the tree gets deeper than kMaxExpressionDepth.
template <typename Node>
ExpressionPtr make_expression(Node node, int line);

extern template ExpressionPtr make_expression(Literal, int);
extern template ExpressionPtr make_expression(Name, int);
extern template ExpressionPtr make_expression(ListLiteral, int);
extern template ExpressionPtr make_expression(MapLiteral, int);
extern template ExpressionPtr make_expression(Unary, int);
extern template ExpressionPtr make_expression(Binary, int);
extern template ExpressionPtr make_expression(Logical, int);
extern template ExpressionPtr make_expression(Concatenation, int);
extern template ExpressionPtr make_expression(Comparison, int);
extern template ExpressionPtr make_expression(Conditional, int);
extern template ExpressionPtr make_expression(Attribute, int);
extern template ExpressionPtr make_expression(Subscript, int);
extern template ExpressionPtr make_expression(Slice, int);
extern template ExpressionPtr make_expression(Call, int);
extern template ExpressionPtr make_expression(FilterCall, int);
extern template ExpressionPtr make_expression(TestCall, int);

}  // namespace skipper::jinja

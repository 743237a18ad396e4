// The syntax tree of a template: what the parser makes and the evaluator walks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "jinja/filters.h"
#include "jinja/type_tests.h"
#include "jinja/value.h"

namespace skipper::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;
struct Statement;
using Body = std::vector<Statement>;

// ---- Expressions

enum class BinaryOperator : uint8_t { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class LogicalOperator : uint8_t { kAnd, kOr };
enum class UnaryOperator : uint8_t { kNot, kMinus, kPlus };
enum class ComparisonOperator : uint8_t {
  kEqual,
  kNotEqual,
  kLess,
  kLessOrEqual,
  kGreater,
  kGreaterOrEqual,
  kIn,
  kNotIn
};

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};

struct Literal {
  Value value;
};
struct Name {
  std::string name;
};
struct ListLiteral {
  std::vector<ExpressionPtr> items;
  SequenceKind kind;  // list or tuple
};
struct MapLiteral {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};
struct Unary {
  UnaryOperator op;
  ExpressionPtr operand;
};
struct Binary {
  BinaryOperator op;
  ExpressionPtr left, right;
};
struct Logical {
  LogicalOperator op;
  ExpressionPtr left, right;
};
struct Concatenation {  // a ~ b ~ c
  std::vector<ExpressionPtr> parts;
};
struct Comparison {  // a < b < c means a < b and b < c
  ExpressionPtr first;
  std::vector<std::pair<ComparisonOperator, ExpressionPtr>> rest;
};
struct Conditional {  // a if c else b; without else: undefined
  ExpressionPtr condition, if_true, if_false;
};
struct Attribute {  // x.name
  ExpressionPtr object;
  std::string name;
};
struct Subscript {  // x[key]
  ExpressionPtr object, key;
};
struct Slice {  // x[start:stop:step], each may be absent
  ExpressionPtr object, start, stop, step;
};
struct Call {
  ExpressionPtr callee;
  CallArguments arguments;
};
struct FilterCall {  // input | filter(arguments)
  ExpressionPtr input;
  FilterFunction filter;
  CallArguments arguments;
};
struct TestCall {  // input is test(arguments), input is not test
  ExpressionPtr input;
  TestFunction test;
  CallArguments arguments;
  bool negated;
};

struct Expression {
  int line;
  int depth;  // 1 + the deepest operand's
  std::variant<Literal, Name, ListLiteral, MapLiteral, Unary, Binary, Logical, Concatenation, Comparison, Conditional,
               Attribute, Subscript, Slice, Call, FilterCall, TestCall>
      node;
};

// ---- Statements

// What set and for assign to: a name, a namespace's attribute (ns.x), or several targets in a tuple.
struct Target {
  std::string name;
  std::string attribute;
  std::vector<Target> elements;  // not empty: a tuple
};

struct Text {
  std::string text;
};
struct Output {  // {{ value }}
  ExpressionPtr value;
};
struct Branch {
  ExpressionPtr condition;  // null: else
  Body body;
};
struct If {
  std::vector<Branch> branches;
};
struct For {
  Target target;
  ExpressionPtr iterable;
  ExpressionPtr filter;  // null: none
  Body body;
  Body otherwise;  // for an empty iterable
};
struct Set {
  Target target;
  ExpressionPtr value;
};
struct SetBlock {  // {% set x %}body{% endset %}
  Target target;
  Body body;
};
struct Parameter {
  std::string name;
  ExpressionPtr fallback;  // null: none
};
struct Macro {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  bool uses_caller;  // only such macros can be used by call blocks
};
struct CallBlock {  // {% call(x) macro() %}body{% endcall %}
  Macro caller;
  ExpressionPtr call;  // a Call
};
struct Generation {  // {% generation %}: marks what the model wrote; printed like any other text
  Body body;
};
struct Break {};
struct Continue {};

struct Statement {
  int line;
  std::variant<Text, Output, If, For, Set, SetBlock, Macro, CallBlock, Generation, Break, Continue> node;
};

}  // namespace skipper::jinja

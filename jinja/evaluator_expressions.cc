#include "jinja/arithmetic.h"
#include "jinja/comparison.h"
#include "jinja/evaluator.h"
#include "jinja/failure.h"
#include "jinja/loop_attributes.h"
#include "jinja/methods.h"
#include "jinja/sequence_access.h"
#include "jinja/value_text.h"

namespace skipper::jinja {

Value Evaluator::evaluate(const Expression& expression) {
  line_ = expression.line;
  budget_.spend_step();
  const Budget::Nesting nesting(budget_);
  return std::visit([this](const auto& node) { return compute(node); }, expression.node);
}

Value Evaluator::evaluate_or_none(const ExpressionPtr& expression) {
  return expression == nullptr ? Value() : evaluate(*expression);
}

Value Evaluator::compute(const Name& node) {
  const Value* value = scope_->find(node.name);
  return value != nullptr ? *value : Value::undefined("'" + node.name + "' is undefined");
}

Value Evaluator::compute(const ListLiteral& node) {
  std::vector<Value> items;
  for (const ExpressionPtr& item : node.items) items.push_back(evaluate(*item));
  budget_.spend_values(items.size());
  return Value::list(std::move(items), node.kind);
}

Value Evaluator::compute(const MapLiteral& node) {
  Map map;
  budget_.spend_values(node.entries.size());
  for (const auto& [key, value] : node.entries) {
    const Value name = evaluate(*key);
    if (!name.is_string()) throw Failure("a key of type " + name.type_name() + " is not supported; use a str");
    map.set(name.as_string(), evaluate(*value));
  }
  return Value::map(std::move(map));
}

Value Evaluator::compute(const Unary& node) {
  const Value operand = evaluate(*node.operand);
  switch (node.op) {
    case UnaryOperator::kNot: return Value(!operand.truth());
    case UnaryOperator::kMinus: return negate(operand);
    case UnaryOperator::kPlus: return unary_plus(operand);
  }
  return Value();
}

Value Evaluator::compute(const Binary& node) {
  const Value left = evaluate(*node.left);
  return apply_binary(budget_, node.op, left, evaluate(*node.right));
}

// As in Python the result is one of the operands, not a bool.
Value Evaluator::compute(const Logical& node) {
  Value left = evaluate(*node.left);
  const bool decides = left.truth() == (node.op == LogicalOperator::kOr);
  return decides ? left : evaluate(*node.right);
}

Value Evaluator::compute(const Concatenation& node) {
  std::string text;
  for (const ExpressionPtr& part : node.parts) {
    text += to_text(budget_, evaluate(*part));
    budget_.check_text(text.size());
  }
  return Value(std::move(text));
}

Value Evaluator::compute(const Comparison& node) {
  Value left = evaluate(*node.first);
  for (const auto& [op, operand] : node.rest) {
    Value right = evaluate(*operand);
    if (!compare(budget_, op, left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Evaluator::compute(const Conditional& node) {
  if (evaluate(*node.condition).truth()) return evaluate(*node.if_true);
  if (node.if_false != nullptr) return evaluate(*node.if_false);
  return Value::undefined("the inline if was false and has no else");
}

Value Evaluator::compute(const Attribute& node) { return attribute_of(evaluate(*node.object), node.name); }

Value Evaluator::compute(const Subscript& node) {
  const Value object = evaluate(*node.object);
  return subscript(budget_, object, evaluate(*node.key));
}

Value Evaluator::compute(const Slice& node) {
  const Value object = evaluate(*node.object);
  SliceBounds bounds;
  bounds.start = evaluate_or_none(node.start);
  bounds.stop = evaluate_or_none(node.stop);
  bounds.step = evaluate_or_none(node.step);
  return slice(budget_, object, bounds);
}

Value Evaluator::compute(const Call& node) {
  if (const auto* attribute = std::get_if<Attribute>(&node.callee->node)) {
    return call_attribute(*attribute, node.arguments);
  }
  const Value callee = evaluate(*node.callee);
  return call(callee, evaluate_arguments(node.arguments));
}

// Methods exist only here, where they are called: no value ever holds one.
Value Evaluator::call_attribute(const Attribute& attribute, const CallArguments& arguments) {
  const Value object = evaluate(*attribute.object);
  if (object.is_loop() && attribute.name == "cycle") return loop_cycle(*object.as_loop(), evaluate_arguments(arguments));
  if (const Method method = find_method(object, attribute.name)) {
    return method(budget_, object, evaluate_arguments(arguments));
  }
  const Value callee = attribute_of(object, attribute.name);
  if (callee.is_undefined()) throw Failure(object.type_name() + " has no method '" + attribute.name + "'");
  return call(callee, evaluate_arguments(arguments));
}

Value Evaluator::call(const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) throw Failure(callee.undefined_reason());
  if (!callee.is_callable()) throw Failure("a " + callee.type_name() + " cannot be called");
  return callee.as_callable().call(arguments);
}

Arguments Evaluator::evaluate_arguments(const CallArguments& arguments) {
  Arguments values;
  for (const ExpressionPtr& argument : arguments.positional) values.positional.push_back(evaluate(*argument));
  for (const auto& [name, argument] : arguments.named) values.named.emplace_back(name, evaluate(*argument));
  return values;
}

Value Evaluator::compute(const FilterCall& node) {
  const Value input = evaluate(*node.input);
  return node.filter(budget_, input, evaluate_arguments(node.arguments));
}

Value Evaluator::compute(const TestCall& node) {
  const Value input = evaluate(*node.input);
  return Value(node.test(budget_, input, evaluate_arguments(node.arguments)) != node.negated);
}

Value Evaluator::attribute_of(const Value& object, const std::string& name) const {
  if (object.is_undefined()) throw Failure(object.undefined_reason());
  if (object.is_loop() && is_loop_attribute(name)) return loop_attribute(*object.as_loop(), name);
  // In Python the method would come before a key of that name.
  if (find_method(object, name) != nullptr) {
    throw Failure("'" + name + "' is a method of " + object.type_name() + ": call it, or write ['" + name + "'] for the key");
  }
  const Map* attributes = object.is_map() ? &object.as_map() : nullptr;
  if (object.is_namespace()) attributes = &object.as_namespace().attributes;
  const Value* value = attributes != nullptr ? attributes->find(name) : nullptr;
  return value != nullptr ? *value : Value::undefined(object.type_name() + " has no attribute '" + name + "'");
}

}  // namespace skipper::jinja

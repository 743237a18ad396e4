#include "jinja/evaluator.h"
#include "jinja/evaluator_scope.h"
#include "jinja/failure.h"
#include "jinja/sequence_access.h"
#include "jinja/template_error.h"
#include "jinja/value_text.h"

namespace skipper::jinja {

Evaluator::Evaluator(const Limits& limits, const Map& context, std::time_t now)
    : budget_(limits), scope_(std::make_shared<Scope>(nullptr)), output_(&printed_) {
  add_global_functions(now);
  for (const auto& [name, value] : context.entries()) scope_->set(name, value);
  scope_ = std::make_shared<Scope>(scope_);
}

Evaluator::~Evaluator() {
  for (const auto& one : namespaces_) one->attributes = Map();
}

std::string Evaluator::render(const Body& body) {
  try {
    execute_body(body);
    return std::move(printed_);
  } catch (const RaisedFailure& failure) {
    throw RaisedByTemplate(failure.what(), line_);
  } catch (const Failure& failure) {
    throw TemplateError(failure.what(), line_);
  }
}

Evaluator::Flow Evaluator::execute_body(const Body& body) {
  for (const Statement& statement : body) {
    const Flow flow = execute(statement);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::execute(const Statement& statement) {
  line_ = statement.line;
  budget_.spend_step();
  const Budget::Nesting nesting(budget_);
  return std::visit([this](const auto& node) { return run(node); }, statement.node);
}

Evaluator::Flow Evaluator::run(const Text& node) {
  write(node.text);
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const Output& node) {
  write(to_text(budget_, evaluate(*node.value)));
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const If& node) {
  for (const Branch& branch : node.branches) {
    if (branch.condition == nullptr || evaluate(*branch.condition).truth()) return execute_body(branch.body);
  }
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const For& node) {
  std::vector<Value> items = items_of(node);
  if (!items.empty()) return run_rounds(node, std::move(items));
  const ScopeGuard inner(*this, scope_);
  return execute_body(node.otherwise);
}

// What the loop goes through, after its filter.
std::vector<Value> Evaluator::items_of(const For& node) {
  std::vector<Value> items = iterate(budget_, evaluate(*node.iterable));
  if (node.filter == nullptr) return items;
  std::vector<Value> kept;
  for (const Value& item : items) {
    const ScopeGuard inner(*this, scope_);
    assign(node.target, item);
    if (evaluate(*node.filter).truth()) kept.push_back(item);
  }
  return kept;
}

// Every round has a scope of its own: what it sets is gone in the next.
Evaluator::Flow Evaluator::run_rounds(const For& node, std::vector<Value> items) {
  const auto loop = std::make_shared<Loop>();
  const Value list = Value::list(std::move(items));
  loop->items = list.as_list();
  for (size_t i = 0; i < loop->items->items.size(); ++i) {
    budget_.spend_step();
    loop->index0 = i;
    const ScopeGuard inner(*this, scope_);
    scope_->set("loop", Value(loop));
    assign(node.target, loop->items->items[i]);
    if (execute_body(node.body) == Flow::kBreak) break;
  }
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const Set& node) {
  assign(node.target, evaluate(*node.value));
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const SetBlock& node) {
  assign(node.target, Value(capture(node.body)));
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::run(const Generation& node) {
  write(capture(node.body));
  return Flow::kNormal;
}

void Evaluator::assign(const Target& target, const Value& value) {
  if (!target.elements.empty()) return assign_elements(target, value);
  if (target.attribute.empty()) return scope_->set(target.name, value);
  const Value* space = scope_->find(target.name);
  if (space == nullptr) throw Failure("'" + target.name + "' is undefined");
  if (!space->is_namespace()) throw Failure("'" + target.name + "' is no namespace, so it has no attributes to set");
  space->as_namespace().attributes.set(target.attribute, value);
}

void Evaluator::assign_elements(const Target& target, const Value& value) {
  const std::vector<Value> values = iterate(budget_, value);
  if (values.size() != target.elements.size()) {
    throw Failure("cannot unpack " + std::to_string(values.size()) + " values into " +
                  std::to_string(target.elements.size()) + " names");
  }
  for (size_t i = 0; i < values.size(); ++i) assign(target.elements[i], values[i]);
}

void Evaluator::write(std::string_view text) {
  budget_.check_text(output_->size() + text.size());
  budget_.spend_bytes(text.size());
  *output_ += text;
}

// What the body prints, in a scope of its own.
std::string Evaluator::capture(const Body& body) {
  std::string text;
  std::string* const outer = std::exchange(output_, &text);
  const ScopeGuard inner(*this, scope_);
  execute_body(body);
  output_ = outer;
  return text;
}

}  // namespace skipper::jinja

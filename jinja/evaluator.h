// Walks a template's syntax tree once and collects what it prints.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "jinja/ast.h"
#include "jinja/budget.h"
#include "jinja/scope.h"
#include "jinja/value.h"

namespace skipper::jinja {

class Evaluator {
 public:
  // `context` holds the variables; `now` is what strftime_now formats.
  Evaluator(const Limits& limits, const Map& context, std::time_t now);
  ~Evaluator();
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

  // Throws TemplateError. Once per Evaluator.
  std::string render(const Body& body);

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  class ScopeGuard;

  // Statements (evaluator_statements.cc)
  Flow execute_body(const Body& body);
  Flow execute(const Statement& statement);
  Flow run(const Text& node);
  Flow run(const Output& node);
  Flow run(const If& node);
  Flow run(const For& node);
  Flow run(const Set& node);
  Flow run(const SetBlock& node);
  Flow run(const Macro& node);
  Flow run(const CallBlock& node);
  Flow run(const Generation& node);
  Flow run(const Break&) { return Flow::kBreak; }
  Flow run(const Continue&) { return Flow::kContinue; }
  std::vector<Value> items_of(const For& node);
  Flow run_rounds(const For& node, std::vector<Value> items);
  void assign(const Target& target, const Value& value);
  void assign_elements(const Target& target, const Value& value);
  void write(std::string_view text);
  std::string capture(const Body& body);

  // Macros (macro_calls.cc)
  Value make_macro(const Macro& macro);
  Value call_macro(const Macro& macro, const std::shared_ptr<Scope>& home, const Arguments& arguments);
  void bind_parameters(const Macro& macro, const Arguments& arguments);
  void refuse_unknown_arguments(const Macro& macro, const Arguments& arguments) const;

  // Expressions (evaluator_expressions.cc)
  Value evaluate(const Expression& expression);
  Value compute(const Literal& node) { return node.value; }
  Value compute(const Name& node);
  Value compute(const ListLiteral& node);
  Value compute(const MapLiteral& node);
  Value compute(const Unary& node);
  Value compute(const Binary& node);
  Value compute(const Logical& node);
  Value compute(const Concatenation& node);
  Value compute(const Comparison& node);
  Value compute(const Conditional& node);
  Value compute(const Attribute& node);
  Value compute(const Subscript& node);
  Value compute(const Slice& node);
  Value compute(const Call& node);
  Value compute(const FilterCall& node);
  Value compute(const TestCall& node);
  Value evaluate_or_none(const ExpressionPtr& expression);
  Value call_attribute(const Attribute& attribute, const CallArguments& arguments);
  Value call(const Value& callee, const Arguments& arguments);
  Arguments evaluate_arguments(const CallArguments& arguments);
  Value attribute_of(const Value& object, const std::string& name) const;

  // Global functions (global_functions.cc)
  void add_global_functions(std::time_t now);
  Value make_namespace(const Arguments& arguments);

  Budget budget_;
  std::shared_ptr<Scope> scope_;
  std::string* output_;  // of the innermost macro, call or block being captured
  std::string printed_;
  int line_ = 0;
  // Namespaces can hold each other; they are emptied at the end, so that no cycle keeps them alive.
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace skipper::jinja

#include <algorithm>

#include "jinja/evaluator.h"
#include "jinja/evaluator_scope.h"
#include "jinja/failure.h"

namespace skipper::jinja {

Evaluator::Flow Evaluator::run(const Macro& node) {
  scope_->set(node.name, make_macro(node));
  return Flow::kNormal;
}

// The callable holds its home scope weakly: the scope holds the callable.
Value Evaluator::make_macro(const Macro& macro) {
  const std::weak_ptr<Scope> home = scope_;
  auto callable = std::make_shared<Callable>();
  callable->name = macro.name;
  callable->call = [this, &macro, home](const Arguments& arguments) {
    const std::shared_ptr<Scope> scope = home.lock();
    if (scope == nullptr) throw Failure("the macro '" + macro.name + "' is used outside the block that defined it");
    return call_macro(macro, scope, arguments);
  };
  return Value(std::shared_ptr<const Callable>(std::move(callable)));
}

Value Evaluator::call_macro(const Macro& macro, const std::shared_ptr<Scope>& home, const Arguments& arguments) {
  const int line = line_;
  refuse_unknown_arguments(macro, arguments);
  const ScopeGuard inner(*this, home);
  bind_parameters(macro, arguments);
  std::string text = capture(macro.body);
  line_ = line;
  return Value(std::move(text));
}

void Evaluator::refuse_unknown_arguments(const Macro& macro, const Arguments& arguments) const {
  if (arguments.positional.size() > macro.parameters.size()) {
    throw Failure("the macro '" + macro.name + "' takes at most " + std::to_string(macro.parameters.size()) + " arguments");
  }
  for (const auto& [name, value] : arguments.named) {
    const bool is_parameter = std::any_of(macro.parameters.begin(), macro.parameters.end(),
                                          [&name = name](const Parameter& parameter) { return parameter.name == name; });
    const bool is_caller = name == "caller" && macro.uses_caller;
    if (!is_parameter && !is_caller) throw Failure("the macro '" + macro.name + "' has no argument '" + name + "'");
  }
}

// Into the current scope, in order: a default may use the parameters before it.
void Evaluator::bind_parameters(const Macro& macro, const Arguments& arguments) {
  if (macro.uses_caller) scope_->set("caller", Value::undefined("the macro was not used by a call block"));
  for (const auto& [name, value] : arguments.named) scope_->set(name, value);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& parameter = macro.parameters[i];
    const bool is_named = std::any_of(arguments.named.begin(), arguments.named.end(),
                                      [&](const auto& argument) { return argument.first == parameter.name; });
    const bool is_positional = i < arguments.positional.size();
    if (is_named && is_positional) throw Failure("the macro '" + macro.name + "' has '" + parameter.name + "' twice");
    if (is_positional) {
      scope_->set(parameter.name, arguments.positional[i]);
    } else if (!is_named) {
      const std::string reason = "parameter '" + parameter.name + "' was not provided";
      scope_->set(parameter.name, parameter.fallback ? evaluate(*parameter.fallback) : Value::undefined(reason));
    }
  }
}

// {% call(x) macro(a) %}: calls macro(a, caller=the block's body as a macro).
Evaluator::Flow Evaluator::run(const CallBlock& node) {
  const Call& call_node = std::get<Call>(node.call->node);
  Arguments arguments = evaluate_arguments(call_node.arguments);
  arguments.named.emplace_back("caller", make_macro(node.caller));
  const Value result = call(evaluate(*call_node.callee), arguments);
  write(result.as_string());
  return Flow::kNormal;
}

}  // namespace skipper::jinja

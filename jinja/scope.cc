#include "jinja/scope.h"

namespace skipper::jinja {

void Scope::set(std::string_view name, Value value) {
  for (auto& [existing, old_value] : variables_) {
    if (existing == name) {
      old_value = std::move(value);
      return;
    }
  }
  variables_.emplace_back(name, std::move(value));
}

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent_.get()) {
    for (const auto& [existing, value] : scope->variables_) {
      if (existing == name) return &value;
    }
  }
  return nullptr;
}

}  // namespace skipper::jinja

#include "jinja/arguments.h"

#include <algorithm>

#include "jinja/failure.h"

namespace skipper::jinja {

BoundArguments::BoundArguments(std::string_view callee, const Arguments& arguments,
                               std::initializer_list<std::string_view> parameters)
    : callee_(callee), parameters_(parameters), values_(parameters.size(), nullptr) {
  if (arguments.positional.size() > parameters_.size()) {
    fail("takes at most " + std::to_string(parameters_.size()) + " arguments");
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto parameter = std::find(parameters_.begin(), parameters_.end(), name);
    if (parameter == parameters_.end()) fail("has no argument '" + name + "'");
    const Value*& slot = values_[static_cast<size_t>(parameter - parameters_.begin())];
    if (slot != nullptr) fail("has the argument '" + name + "' twice");
    slot = &value;
  }
}

const Value& BoundArguments::at(size_t index) const {
  if (!has(index)) fail("needs the argument '" + std::string(parameters_[index]) + "'");
  return *values_[index];
}

std::string BoundArguments::text(size_t index) const {
  const Value& value = at(index);
  if (!value.is_string()) {
    fail("needs a str as '" + std::string(parameters_[index]) + "', not " + value.type_name());
  }
  return value.as_string();
}

std::string BoundArguments::text_or(size_t index, std::string_view fallback) const {
  return has(index) ? text(index) : std::string(fallback);
}

int64_t BoundArguments::integer_or(size_t index, int64_t fallback) const {
  if (!has(index)) return fallback;
  if (!values_[index]->is_int() && !values_[index]->is_bool()) {
    fail("needs an int as '" + std::string(parameters_[index]) + "', not " + values_[index]->type_name());
  }
  return values_[index]->as_int();
}

void BoundArguments::fail(const std::string& problem) const { throw Failure(callee_ + " " + problem); }

}  // namespace skipper::jinja

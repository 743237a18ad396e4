// Variables by name, in nested scopes: loops, macros and blocks open one, if does not.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/value.h"

namespace skipper::jinja {

class Scope {
 public:
  // An inner scope sees its parent's variables, also those set later, and hides them by setting its own.
  explicit Scope(std::shared_ptr<const Scope> parent) : parent_(std::move(parent)) {}

  void set(std::string_view name, Value value);
  // Null when no scope from here outwards has the name.
  const Value* find(std::string_view name) const;

 private:
  std::shared_ptr<const Scope> parent_;
  std::vector<std::pair<std::string, Value>> variables_;  // few; searched from the front
};

}  // namespace skipper::jinja

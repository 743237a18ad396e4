// Positional and named arguments matched to the parameters of a filter, test, method or function.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/value.h"

namespace skipper::jinja {

//   const BoundArguments bound("join", arguments, {"d", "attribute"});
//   const std::string separator = bound.text_or(0, "");
//
// Every method throws Failure when the argument has the wrong type or is missing without a default.
class BoundArguments {
 public:
  // Throws Failure for too many, unknown or repeated arguments.
  BoundArguments(std::string_view callee, const Arguments& arguments, std::initializer_list<std::string_view> parameters);

  bool has(size_t index) const { return values_[index] != nullptr; }
  const Value& at(size_t index) const;
  Value value_or(size_t index, Value fallback) const { return has(index) ? *values_[index] : std::move(fallback); }
  std::string text(size_t index) const;
  std::string text_or(size_t index, std::string_view fallback) const;
  int64_t integer_or(size_t index, int64_t fallback) const;
  bool truth(size_t index) const { return has(index) && values_[index]->truth(); }  // false when absent

 private:
  [[noreturn]] void fail(const std::string& problem) const;

  std::string callee_;
  std::vector<std::string_view> parameters_;
  std::vector<const Value*> values_;
};

}  // namespace skipper::jinja

// The functions every template can call: range, namespace, dict, raise_exception, strftime_now.
#include <array>

#include "jinja/arguments.h"
#include "jinja/evaluator.h"
#include "jinja/failure.h"
#include "jinja/sequence_access.h"
#include "jinja/value_text.h"

namespace skipper::jinja {
namespace {

constexpr size_t kMaxRange = 100'000;  // as Jinja's sandbox

int64_t range_argument(const Value& value) {
  if (!value.is_int() && !value.is_bool()) throw Failure("range needs integers, not " + value.type_name());
  return value.as_int();
}

Value range(Budget& budget, const Arguments& arguments) {
  const std::vector<Value>& given = arguments.positional;
  if (given.empty() || given.size() > 3 || !arguments.named.empty()) throw Failure("range takes 1 to 3 arguments");
  const int64_t start = given.size() == 1 ? 0 : range_argument(given[0]);
  const int64_t stop = range_argument(given[given.size() == 1 ? 0 : 1]);
  const int64_t step = given.size() == 3 ? range_argument(given[2]) : 1;
  if (step == 0) throw Failure("range needs a step other than 0");
  std::vector<Value> numbers;
  for (int64_t number = start; step > 0 ? number < stop : number > stop;) {
    if (numbers.size() == kMaxRange) throw Failure("range makes at most " + std::to_string(kMaxRange) + " numbers");
    numbers.emplace_back(number);
    if (__builtin_add_overflow(number, step, &number)) break;
  }
  budget.spend_values(numbers.size());
  return Value::list(std::move(numbers), SequenceKind::kRange);
}

void set_pair(Budget& budget, Map& map, const Value& pair) {
  const std::vector<Value> parts = iterate(budget, pair);
  if (parts.size() != 2 || !parts[0].is_string()) throw Failure("dict needs pairs of a str and a value");
  map.set(parts[0].as_string(), parts[1]);
}

// dict(other, name=value, ...), where other is a map or a list of pairs.
Map make_map(Budget& budget, const Arguments& arguments) {
  if (arguments.positional.size() > 1) throw Failure("dict and namespace take at most one positional argument");
  Map map;
  for (const Value& other : arguments.positional) {
    if (other.is_map()) {
      budget.spend_values(other.as_map().size());
      map = other.as_map();
    } else {
      for (const Value& pair : iterate(budget, other)) set_pair(budget, map, pair);
    }
  }
  budget.spend_values(arguments.named.size());
  for (const auto& [name, value] : arguments.named) map.set(name, value);
  return map;
}

Value raise_exception(Budget& budget, const Arguments& arguments) {
  const BoundArguments bound("raise_exception", arguments, {"message"});
  throw RaisedFailure(to_text(budget, bound.at(0)));
}

Value format_time(std::time_t now, const Arguments& arguments) {
  const std::string format = BoundArguments("strftime_now", arguments, {"format"}).text(0);
  if (format.size() > 200) throw Failure("strftime_now takes a format of at most 200 bytes");
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 4096> text;
  // The blank keeps the result of an empty format from looking like a failure.
  const size_t size = std::strftime(text.data(), text.size(), (format + " ").c_str(), &local);
  if (size == 0) throw Failure("strftime_now makes too long a text");
  return Value(std::string(text.data(), size - 1));
}

}  // namespace

void Evaluator::add_global_functions(std::time_t now) {
  const auto add = [this](const char* name, std::function<Value(const Arguments&)> call) {
    scope_->set(name, Value(std::make_shared<const Callable>(Callable{name, std::move(call)})));
  };
  add("range", [this](const Arguments& arguments) { return range(budget_, arguments); });
  add("dict", [this](const Arguments& arguments) { return Value::map(make_map(budget_, arguments)); });
  add("namespace", [this](const Arguments& arguments) { return make_namespace(arguments); });
  add("raise_exception", [this](const Arguments& arguments) { return raise_exception(budget_, arguments); });
  add("strftime_now", [now](const Arguments& arguments) { return format_time(now, arguments); });
}

Value Evaluator::make_namespace(const Arguments& arguments) {
  auto space = std::make_shared<Namespace>(Namespace{make_map(budget_, arguments)});
  for (const auto& [name, value] : space->attributes.entries()) {
    if (name.starts_with('_')) throw Failure("a namespace cannot have the private attribute '" + name + "'");
  }
  namespaces_.push_back(space);
  return Value(std::move(space));
}

}  // namespace skipper::jinja

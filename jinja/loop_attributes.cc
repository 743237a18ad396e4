#include "jinja/loop_attributes.h"

#include <algorithm>
#include <array>

#include "jinja/failure.h"

namespace skipper::jinja {
namespace {

constexpr std::array<std::string_view, 12> kNames = {"index", "index0", "revindex", "revindex0", "first",  "last",
                                                     "length", "depth",  "depth0",   "previtem",  "nextitem", "cycle"};

}  // namespace

bool is_loop_attribute(std::string_view name) { return std::find(kNames.begin(), kNames.end(), name) != kNames.end(); }

Value loop_attribute(const Loop& loop, std::string_view name) {
  const std::vector<Value>& items = loop.items->items;
  const bool is_first = loop.index0 == 0;
  const bool is_last = loop.index0 + 1 == items.size();
  if (name == "index") return Value::size(loop.index0 + 1);
  if (name == "index0") return Value::size(loop.index0);
  if (name == "revindex") return Value::size(items.size() - loop.index0);
  if (name == "revindex0") return Value::size(items.size() - loop.index0 - 1);
  if (name == "first") return Value(is_first);
  if (name == "last") return Value(is_last);
  if (name == "length") return Value::size(items.size());
  if (name == "depth") return Value::size(1);  // of recursive loops, which are not supported
  if (name == "depth0") return Value::size(0);
  if (name == "previtem") return is_first ? Value::undefined("there is no previous item") : items[loop.index0 - 1];
  if (name == "nextitem") return is_last ? Value::undefined("there is no next item") : items[loop.index0 + 1];
  throw Failure("loop." + std::string(name) + " cannot be read");
}

Value loop_cycle(const Loop& loop, const Arguments& arguments) {
  if (arguments.positional.empty()) throw Failure("loop.cycle needs at least one value");
  return arguments.positional[loop.index0 % arguments.positional.size()];
}

}  // namespace skipper::jinja

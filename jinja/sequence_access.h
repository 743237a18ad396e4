// Looking into values: length, iteration, x[key], x[a:b:c], with Python's rules for negative positions.
#pragma once

#include <optional>
#include <vector>

#include "jinja/budget.h"
#include "jinja/value.h"

namespace skipper::jinja {

// Characters of a string, entries of a list or map; 0 for undefined. Throws Failure for values without a length.
size_t length_of(Budget& budget, const Value& value);

// What `for` goes through: items, characters, keys; nothing for undefined. Empties an iterator. Throws Failure for values that
// cannot be iterated.
std::vector<Value> iterate(Budget& budget, const Value& value);

// x[key]; undefined when there is none. Throws Failure for an undefined x.
Value subscript(Budget& budget, const Value& object, const Value& key);

// An absent bound is undefined or none.
struct SliceBounds {
  Value start, stop, step;
};
Value slice(Budget& budget, const Value& object, const SliceBounds& bounds);

}  // namespace skipper::jinja

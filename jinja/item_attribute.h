// The `attribute` argument of filters such as map and sort: "a.b.0" names item["a"]["b"][0].
#pragma once

#include <vector>

#include "jinja/budget.h"
#include "jinja/value.h"

namespace skipper::jinja {

class ItemAttribute {
 public:
  // `path` is a text or an integer. Throws Failure for other types.
  explicit ItemAttribute(const Value& path);

  // Undefined when the last part is missing; throws Failure when an earlier one is.
  Value of(Budget& budget, const Value& item) const;

 private:
  std::vector<Value> parts_;
};

}  // namespace skipper::jinja

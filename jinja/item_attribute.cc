#include "jinja/item_attribute.h"

#include <algorithm>
#include <charconv>

#include "jinja/failure.h"
#include "jinja/sequence_access.h"
#include "jinja/text_splitting.h"

namespace skipper::jinja {
namespace {

Value part_of(std::string_view text) {
  const bool is_number = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  int64_t number = 0;
  const bool fits = is_number && std::from_chars(text.data(), text.data() + text.size(), number).ec == std::errc();
  return fits ? Value(number) : Value(text);
}

}  // namespace

ItemAttribute::ItemAttribute(const Value& path) {
  if (path.is_int()) {
    parts_.push_back(path);
    return;
  }
  if (!path.is_string()) throw Failure("'attribute' must be a str or an int, not " + path.type_name());
  for (std::string_view part : split_at(path.as_string(), ".", -1, SplitFrom::kLeft)) parts_.push_back(part_of(part));
}

Value ItemAttribute::of(Budget& budget, const Value& item) const {
  Value value = item;
  for (const Value& part : parts_) value = subscript(budget, value, part);
  return value;
}

}  // namespace skipper::jinja

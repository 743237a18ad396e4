// What templates can ask of the `loop` variable: loop.index, loop.first ...
#pragma once

#include <string_view>

#include "jinja/value.h"

namespace skipper::jinja {

bool is_loop_attribute(std::string_view name);

// `name` is a loop attribute other than cycle.
Value loop_attribute(const Loop& loop, std::string_view name);

// loop.cycle(a, b, ...): the arguments in turn, one per round.
Value loop_cycle(const Loop& loop, const Arguments& arguments);

}  // namespace skipper::jinja

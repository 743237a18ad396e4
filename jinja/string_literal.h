// The content of a quoted string of a template, by Python's rules for escapes.
#pragma once

#include <string>
#include <string_view>

namespace skipper::jinja {

// `body` is what stands between the quotes. Throws Failure for an escape that is malformed or not supported.
std::string unescape_string(std::string_view body);

}  // namespace skipper::jinja

// Template source → syntax tree; everything outside the supported subset is refused here, by line and name.
#pragma once

#include <string_view>

#include "jinja/ast.h"

namespace skipper::jinja {

// Throws TemplateError.
Body parse_template(std::string_view source);

}  // namespace skipper::jinja

#include "jinja/template_error.h"

namespace skipper::jinja {

TemplateError::TemplateError(const std::string& message, int line)
    : Error("line " + std::to_string(line) + ": " + message), message_(message), line_(line) {}

}  // namespace skipper::jinja

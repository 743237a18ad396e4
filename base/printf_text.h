// Lines of tables, in columns.
#pragma once

#include <string>

namespace skipper {

// What printf would print; at most 511 characters.
[[gnu::format(printf, 1, 2)]] std::string printf_text(const char* format, ...);

}  // namespace skipper

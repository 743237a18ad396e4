// First line of the files in which a long search keeps what it has measured.
#pragma once

#include <string>

namespace skipper {

// Names the format's version and the settings that every later line depends on.
std::string settings_line(const std::string& settings);

}  // namespace skipper

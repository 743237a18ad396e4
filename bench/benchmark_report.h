// Where the figures of a benchmark program go.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace skipper {

// The table to stdout, and `figures` to the file that --json names, unless it is empty. Throws InvalidFile where it cannot be
// written.
void publish(const std::string& table, const nlohmann::json& figures, const std::string& json_file);

}  // namespace skipper

#include "evaluation/settings_line.h"

#include <nlohmann/json.hpp>

namespace skipper {

std::string settings_line(const std::string& settings) {
  return nlohmann::json({{"version", 1}, {"settings", settings}}).dump();
}

}  // namespace skipper

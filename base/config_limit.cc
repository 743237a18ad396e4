#include "base/config_limit.h"

#include <string>

#include "base/error.h"

namespace skipper {

void require(const ConfigLimit& limit) {
  if (limit.value >= limit.min && limit.value <= limit.max) return;
  throw InvalidFile(std::string(limit.key) + ": " + std::to_string(limit.value) + " is out of range; expected " +
                    std::to_string(limit.min) + " to " + std::to_string(limit.max));
}

}  // namespace skipper

#include "comm/comm_config.h"

#include <string>

#include "base/error.h"

namespace skipper {

void CommConfig::validate() const {
  constexpr std::chrono::milliseconds kShortest{10};
  constexpr std::chrono::milliseconds kLongest{std::chrono::hours(1)};
  if (deadline >= kShortest && deadline <= kLongest) return;
  throw InvalidFile("comm.deadline_ms: " + std::to_string(deadline.count()) + " is out of range; expected " +
                    std::to_string(kShortest.count()) + " to " + std::to_string(kLongest.count()));
}

}  // namespace skipper

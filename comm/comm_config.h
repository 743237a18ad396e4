// Settings of the communicators.
#pragma once

#include <chrono>

namespace skipper {

struct CommConfig {
  // Longest time one collective may take before the group is given up (ms).
  std::chrono::milliseconds deadline{30000};

  // Throws InvalidFile naming the key ("comm.deadline_ms") whose value cannot work.
  void validate() const;
};

}  // namespace skipper

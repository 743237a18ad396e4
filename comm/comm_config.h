// Settings of the communicators.
#pragma once

#include <chrono>

namespace skipper {

struct CommConfig {
  // Longest time one collective may take before the group is given up (ms).
  std::chrono::milliseconds deadline{30000};
  // The same while ranks start and load weights, some much later than others (ms).
  std::chrono::milliseconds startup_deadline{30 * 60 * 1000};

  // Throws InvalidFile naming the key ("comm.deadline_ms") whose value cannot work.
  void validate() const;
};

}  // namespace skipper

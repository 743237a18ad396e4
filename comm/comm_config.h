// Settings of the communicators.
#pragma once

#include <chrono>

namespace skipper {

struct CommConfig {
  // Longest time one collective may take before the group is given up (ms). Ranks wait for one another inside a step, so it must
  // be longer than the longest prompt chunk and image encoding of one rank.
  std::chrono::milliseconds deadline{30000};

  // Throws InvalidFile naming the key ("comm.deadline_ms") whose value cannot work.
  void validate() const;
};

}  // namespace skipper

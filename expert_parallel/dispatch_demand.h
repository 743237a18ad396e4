// What steps asked of the fixed slots in which rows travel between GPUs.
#pragma once

#include <cstdint>

namespace skipper {

// The same on every rank.
struct DispatchDemand {
  int64_t most_rows = 0;   // in the last step, that one rank had for another in one layer; 0: it had no fixed slots
  int64_t num_reruns = 0;  // since start: steps run once more because slots had been too few
};

}  // namespace skipper

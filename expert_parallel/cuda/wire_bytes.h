// How many bytes a micro-batch puts on the wire.
#pragma once

#include <cstdint>

namespace skipper::cuda {

// Padding and metadata included; by Direction and Hop. A plain struct, for it is an argument of a kernel.
struct WireBytes {
  int64_t by_direction_and_hop[2][3] = {};
};

}  // namespace skipper::cuda

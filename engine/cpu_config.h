// How many threads the kernels of one rank share.
#pragma once

#include <cstdint>

namespace skipper {

struct CpuConfig {
  int64_t threads = 0;  // 0: the cores that the process may use, shared with the other ranks of the host that may use them too

  // Throws InvalidFile naming the key ("cpu.threads") whose value cannot work.
  void validate() const;
};

}  // namespace skipper

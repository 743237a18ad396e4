// Which machine something was measured on.
#pragma once

#include <string>

namespace skipper {

struct HostIdentity {
  std::string name;       // of the host; says where, not what
  std::string processor;  // "AMD EPYC 9R14 (avx512_bf16)": model and the instruction set that kernels use
  int num_cores = 0;      // that processes may use
  std::string gpu;        // the first; empty: none

  friend bool operator==(const HostIdentity&, const HostIdentity&) = default;
};

// Of this process's host.
HostIdentity this_host();

// In which way rates of `measured` do not hold for `here`, as "cores 8, here 2"; empty where they do. Names may differ: hosts of
// a cluster are alike.
std::string difference(const HostIdentity& measured, const HostIdentity& here);

}  // namespace skipper

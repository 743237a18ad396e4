// When layers stop skipping because deciding costs more than it saves.
#pragma once

#include <cstdint>

namespace skipper {

struct SkipGateConfig {
  bool switch_off = true;      // false: layers skip whatever it costs, and answers do not depend on measured times
  int64_t window_steps = 256;  // with tokens, over which costs are compared

  // Throws InvalidFile naming the key ("skipping.window_steps").
  void validate() const;
};

}  // namespace skipper

// A layer and phase in which no level skips, because deciding cost more than it saved.
#pragma once

#include "cluster/token_class.h"

namespace skipper {

struct SwitchedOffLayer {
  int moe_layer = 0;
  TokenPhase phase = TokenPhase::kPrompt;
  double cost_seconds = 0.0;    // of deciding, in the steps that were compared
  double saving_seconds = 0.0;  // of what was skipped in them

  bool operator==(const SwitchedOffLayer&) const = default;
};

}  // namespace skipper

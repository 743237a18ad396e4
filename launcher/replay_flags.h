// Which flags of `skipper replay` go together.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// Decisions are made again by one group of flags, caches are replayed by another. Throws UsageError for both, or for flags that
// say nothing without --cache.
void check_replay_flags(const CommandLine& line);

}  // namespace skipper

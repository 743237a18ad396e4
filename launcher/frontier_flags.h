// Which flags of `skipper frontier` go together.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// Levels of skipping and plans are searched by flags of their own. Throws UsageError for one of the other kind.
void check_frontier_flags(const CommandLine& line);

}  // namespace skipper

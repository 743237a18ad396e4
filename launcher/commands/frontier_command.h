// `skipper frontier`: a measured ladder of operating points.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// Returns the exit status. Throws UsageError for flags, Error and InvalidFile for what stops the work; what was measured until
// then stays in OUT.partial for the next run.
int run_frontier_command(const CommandLine& line);

}  // namespace skipper

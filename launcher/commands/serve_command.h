// `skipper serve`: the HTTP server at rank 0, the step loop on all ranks.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// Returns the exit status. Throws Error.
int run_serve(const CommandLine& line);

}  // namespace skipper

// `skipper quantize`: a checkpoint in, a smaller one out.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// Returns the exit status. Throws UsageError for formats, Error and InvalidFile for what stops the work; then, and after
// SIGINT or SIGTERM, nothing is left of the output.
int run_quantize(const CommandLine& line);

}  // namespace skipper

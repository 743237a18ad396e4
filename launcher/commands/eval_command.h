// `skipper eval`: perplexity and answers on held-out data.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// Returns the exit status. Throws Error.
int run_eval(const CommandLine& line);

}  // namespace skipper

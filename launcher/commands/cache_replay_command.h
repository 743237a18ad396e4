// `skipper replay --cache`: what caches of experts would have made of recorded routes.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// Prints a table of hit rates over all tokens, and one over generated tokens alone where the file has some. Throws Error.
int run_cache_replay(const CommandLine& line);

}  // namespace skipper

// `skipper replay`: the decisions of an audit file, made again.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// Returns the exit status: 1 when a decision differs from what was logged. Throws Error.
int run_replay(const CommandLine& line);

}  // namespace skipper

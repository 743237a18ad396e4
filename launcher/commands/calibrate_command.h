// `skipper calibrate`: how much the experts of each layer matter to text and vision tokens.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// On every rank of the group. Returns the exit status. Throws Error.
int run_calibrate(const CommandLine& line);

}  // namespace skipper

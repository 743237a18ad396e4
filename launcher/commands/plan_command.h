// `skipper plan`: budgets of memory in, a plan of every expert's format, memory and rank out.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// Returns the exit status: 1, after one line, where the experts do not fit. Reads config.json and the weight index or headers,
// never weights. Throws UsageError for flags, InvalidFile for files, Error for what cannot be planned.
int run_plan(const CommandLine& line);

}  // namespace skipper

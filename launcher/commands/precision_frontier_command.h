// `skipper frontier --precision true`: plans for a sweep of memory sizes and single formats, predicted and measured.
#pragma once

#include "launcher/flags.h"

namespace skipper {

int run_precision_frontier(const CommandLine& line);

}  // namespace skipper

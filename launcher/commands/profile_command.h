// `skipper profile`: measures what rounding each expert costs, for `skipper plan --profile`.
#pragma once

#include "launcher/flags.h"

namespace skipper {

int run_profile(const CommandLine& line);

}  // namespace skipper

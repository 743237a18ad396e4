// `skipper experts`: asks every expert for answers, and writes what they say of it for the rules that look at single experts.
#pragma once

#include "launcher/flags.h"

namespace skipper {

int run_experts(const CommandLine& line);

}  // namespace skipper

// `skipper machine`: measures the rates of memory, disk, links, kernels and GPU by which plans predict their speed.
#pragma once

#include "launcher/flags.h"

namespace skipper {

int run_machine(const CommandLine& line);

}  // namespace skipper

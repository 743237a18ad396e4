// `skipper measure`: what operating points do to every sample of a data set.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// Measures each point of --points over all samples and writes a line for it on standard output, after one line that describes the
// samples and one of level 0. Nothing is held out: who chooses points chooses the data. Throws Error.
int run_measure(const CommandLine& line);

}  // namespace skipper

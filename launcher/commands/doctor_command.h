// `skipper doctor`: what this machine has to run the server with, and what does not fit together.
#pragma once

namespace skipper {

// Prints what it found and, for each problem, what to do. Needs neither a GPU nor other ranks. Returns the exit status: 0 when
// nothing is wrong.
int run_doctor();

}  // namespace skipper

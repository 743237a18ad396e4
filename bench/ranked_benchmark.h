// The frame of benchmark programs that run alone or on several ranks under mpirun.
#pragma once

#include "bench/benchmark_flags.h"

namespace skipper {

// As benchmark_main(), but of several ranks one alone prints an error.
int ranked_benchmark_main(const BenchmarkProgram& program, int argc, char** argv);

// The cores of this machine divided by its ranks, at least 1.
int threads_of_rank(int ranks_on_node);

}  // namespace skipper

// The MPI of a test program that runs under mpirun.
#pragma once

#include "comm/mpi_runtime.h"

namespace skipper {

// Started by the main() of mpi_test_main.cc before the first test. Each rank runs all tests, in the same order.
MpiRuntime& test_mpi_runtime();

}  // namespace skipper

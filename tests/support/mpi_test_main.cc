#include "tests/support/mpi_test_main.h"

#include <gmock/gmock.h>

#include <cstdio>
#include <optional>

namespace {

std::optional<skipper::MpiRuntime> runtime;

}  // namespace

namespace skipper {

MpiRuntime& test_mpi_runtime() { return *runtime; }

}  // namespace skipper

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  if (!skipper::MpiRuntime::launched()) {
    std::fprintf(stderr, "run this test with mpirun -n 2\n");
    return 2;
  }
  runtime.emplace();
  const int failed = RUN_ALL_TESTS();
  runtime.reset();
  return failed;
}

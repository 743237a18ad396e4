#include "bench/ranked_benchmark.h"

#include <algorithm>
#include <thread>

#include "launcher/error_line.h"

namespace skipper {

int ranked_benchmark_main(const BenchmarkProgram& program, int argc, char** argv) {
  return benchmark_main(program, argc, argv, {is_first_rank, [] { return !lower_rank_has_ended_the_group(); }});
}

int threads_of_rank(int ranks_on_node) {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / ranks_on_node);
}

}  // namespace skipper

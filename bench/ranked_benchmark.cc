#include "bench/ranked_benchmark.h"

#include <glog/logging.h>

#include <algorithm>
#include <iostream>
#include <thread>

#include "base/error.h"
#include "launcher/error_line.h"

namespace skipper {
namespace {

constexpr int kExitError = 1;
constexpr int kExitUsage = 2;

}  // namespace

int ranked_benchmark_main(const BenchmarkProgram& program, int argc, char** argv) {
  google::InitGoogleLogging(argv[0]);
  google::LogToStderr();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto print_error = [&](const std::string& message) { std::cerr << program.name << ": error: " + message + "\n"; };
  try {
    if (asks_for_help(arguments)) {
      std::cout << benchmark_help(program.introduction, program.source_file);
      return 0;
    }
    parse_benchmark_flags(arguments, program.source_file);
    program.run();
    return 0;
  } catch (const UsageError& e) {
    if (is_first_rank()) print_error(e.what());
    return kExitUsage;
  } catch (const std::exception& e) {
    if (!lower_rank_has_ended_the_group()) print_error(e.what());
    return kExitError;
  }
}

int threads_of_rank(int ranks_on_node) {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / ranks_on_node);
}

}  // namespace skipper

// Entry point: parses the command line, runs one command, and turns errors into one line and an exit status.
#include <glog/logging.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "base/build_config.h"
#include "base/error.h"
#include "launcher/commands/eval_command.h"
#include "launcher/commands/serve_command.h"
#include "launcher/flags.h"
#include "tensor/device_runtime.h"

namespace {

constexpr int kExitError = 1;
constexpr int kExitUsage = 2;

// Every rank meets the same error; one of them says it.
bool speaks_for_all_ranks() {
  const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (rank == nullptr) rank = std::getenv("PMIX_RANK");
  return rank == nullptr || std::string(rank) == "0";
}

int fail(const std::string& message, int status) {
  std::cerr << "skipper: error: " << message << std::endl;
  return status;
}

int run(const skipper::CommandLine& line) {
  if (line.command == "serve") return skipper::run_serve(line);
  if (line.command == "eval") return skipper::run_eval(line);
  if (!speaks_for_all_ranks()) return 0;
  if (line.command == "version") {
    std::cout << "skipper " << skipper::kVersion << " (" << skipper::backend_versions() << ")\n";
  } else {
    std::cout << skipper::help_text(line.arguments.empty() ? "" : line.arguments[0]);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  google::InitGoogleLogging(argv[0]);
  google::LogToStderr();
  try {
    return run(skipper::parse_command_line(std::vector<std::string>(argv + 1, argv + argc)));
  } catch (const skipper::UsageError& e) {
    return speaks_for_all_ranks() ? fail(e.what(), kExitUsage) : kExitUsage;
  } catch (const skipper::CommError& e) {
    // Ranks may fail alone here, so each says what it knows.
    LOG(ERROR) << e.location() << ": " << e.what();
    return fail(e.what(), kExitError);
  } catch (const skipper::Error& e) {
    VLOG(1) << "thrown at " << e.location();
    return speaks_for_all_ranks() ? fail(e.what(), kExitError) : kExitError;
  } catch (const std::exception& e) {
    return fail(std::string("unexpected: ") + e.what(), kExitError);
  }
}

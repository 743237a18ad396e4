// Entry point: parses the command line, runs one command, and turns errors into one line and an exit status.
#include <glog/logging.h>

#include <iostream>
#include <string>
#include <vector>

#include "base/build_config.h"
#include "base/error.h"
#include "launcher/commands/calibrate_command.h"
#include "launcher/commands/doctor_command.h"
#include "launcher/commands/eval_command.h"
#include "launcher/commands/frontier_command.h"
#include "launcher/commands/experts_command.h"
#include "launcher/commands/machine_command.h"
#include "launcher/commands/measure_command.h"
#include "launcher/commands/quantize_command.h"
#include "launcher/commands/plan_command.h"
#include "launcher/commands/precision_frontier_command.h"
#include "launcher/commands/profile_command.h"
#include "launcher/commands/replay_command.h"
#include "launcher/commands/serve_command.h"
#include "launcher/commands/tenants_command.h"
#include "launcher/error_line.h"
#include "launcher/flags.h"
#include "tensor/device_runtime.h"

namespace {

constexpr int kExitError = 1;
constexpr int kExitUsage = 2;

int run(const skipper::CommandLine& line) {
  if (line.command == "serve") return skipper::run_serve(line);
  if (line.command == "calibrate") return skipper::run_calibrate(line);
  if (line.command == "eval") return skipper::run_eval(line);
  if (line.command == "frontier" && line.precision) return skipper::run_precision_frontier(line);
  if (line.command == "frontier") return skipper::run_frontier_command(line);
  if (line.command == "experts") return skipper::run_experts(line);
  if (line.command == "measure") return skipper::run_measure(line);
  if (line.command == "quantize") return skipper::run_quantize(line);
  if (line.command == "machine") return skipper::run_machine(line);
  // These run a model on one rank, and say so where there are more: all of them have to come to MPI_Init.
  if (line.command == "profile") return skipper::run_profile(line);
  if (line.command == "plan" && !line.verify.empty()) return skipper::run_plan(line);
  if (!skipper::is_first_rank()) return 0;
  if (line.command == "doctor") return skipper::run_doctor();
  if (line.command == "plan") return skipper::run_plan(line);
  if (line.command == "replay") return skipper::run_replay(line);
  if (line.command == "tenants") return skipper::run_tenants(line);
  if (line.command == "version") {
    std::cout << "skipper " << skipper::kVersion << " (" << skipper::backend_versions() << ")\n";
  } else {
    std::cout << skipper::help_text(line.arguments.empty() ? "" : line.arguments[0]);
  }
  return 0;
}

// All ranks have met this error.
void print_as_first_rank(const std::string& message) {
  if (skipper::is_first_rank()) {
    skipper::print_error(message);
  } else {
    skipper::wait_for_first_rank();
  }
}

}  // namespace

int main(int argc, char** argv) {
  google::InitGoogleLogging(argv[0]);
  google::LogToStderr();
  try {
    return run(skipper::parse_command_line(std::vector<std::string>(argv + 1, argv + argc)));
  } catch (const skipper::UsageError& e) {
    print_as_first_rank(e.what());
    return kExitUsage;
  } catch (const skipper::CommError& e) {
    // Ranks may fail alone here; the lowest that still can tells what it knows.
    VLOG(1) << "thrown at " << e.location();
    if (!skipper::lower_rank_has_ended_the_group()) skipper::print_error(e.what());
  } catch (const skipper::Error& e) {
    VLOG(1) << "thrown at " << e.location();
    print_as_first_rank(e.what());
  } catch (const std::exception& e) {
    if (!skipper::lower_rank_has_ended_the_group()) skipper::print_error(std::string("unexpected: ") + e.what());
  }
  return kExitError;
}

#include "comm/communicator_factory.h"

#include <unistd.h>

#include <array>
#include <chrono>

#include "comm/mpi_communicator.h"
#include "comm/thread_communicator.h"

namespace skipper {

namespace {

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return name.data();
}

// Long enough to load the largest checkpoint from a slow disk.
constexpr std::chrono::minutes kStartupDeadline{30};

std::unique_ptr<Communicator> open_communicator(const CommConfig& config, const ProcessGroup& group, const std::string& name) {
  if (group.runtime) return std::make_unique<MpiCommunicator>(*group.runtime, config, name);
  return std::move(make_thread_communicators(1, config).front());
}

}  // namespace

ProcessGroup join_process_group() {
  ProcessGroup group;
  group.host_name = host_name();
  if (MpiRuntime::launched()) {
    group.runtime = std::make_unique<MpiRuntime>();
    group.host_name = group.runtime->host_name();
    group.node_rank = group.runtime->node_rank();
    group.node_size = group.runtime->node_size();
  }
  group.startup = open_communicator({.deadline = kStartupDeadline}, group, "skipper-startup");
  return group;
}

void open_communicators(const CommConfig& config, ProcessGroup& group) {
  group.control = open_communicator(config, group, "skipper-control");
  group.data = open_communicator(config, group, "skipper-data");
}

}  // namespace skipper

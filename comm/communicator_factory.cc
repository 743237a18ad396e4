#include "comm/communicator_factory.h"

#include <unistd.h>

#include <array>

#include "comm/mpi_communicator.h"
#include "comm/thread_communicator.h"

namespace skipper {

namespace {

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return name.data();
}

ProcessGroup group_of_one(const CommConfig& config) {
  ProcessGroup group;
  group.startup = std::move(make_thread_communicators(1, config).front());
  group.control = std::move(make_thread_communicators(1, config).front());
  group.data = std::move(make_thread_communicators(1, config).front());
  group.host_name = host_name();
  return group;
}

ProcessGroup mpi_group(const CommConfig& config) {
  ProcessGroup group;
  group.runtime = std::make_unique<MpiRuntime>();
  CommConfig startup = config;
  startup.deadline = config.startup_deadline;
  group.startup = std::make_unique<MpiCommunicator>(*group.runtime, startup, "skipper-startup");
  group.control = std::make_unique<MpiCommunicator>(*group.runtime, config, "skipper-control");
  group.data = std::make_unique<MpiCommunicator>(*group.runtime, config, "skipper-data");
  group.host_name = group.runtime->host_name();
  group.node_rank = group.runtime->node_rank();
  group.node_size = group.runtime->node_size();
  return group;
}

}  // namespace

ProcessGroup join_process_group(const CommConfig& config) {
  return MpiRuntime::launched() ? mpi_group(config) : group_of_one(config);
}

}  // namespace skipper

// Chooses this process's communicators: MPI when it was started by mpirun, else a group of one.
#pragma once

#include <memory>
#include <string>

#include "comm/comm_config.h"
#include "comm/communicator.h"
#include "comm/mpi_runtime.h"

namespace skipper {

// What a process needs to talk to its group. Separate communicators, so that control and data never mix.
struct ProcessGroup {
  std::unique_ptr<MpiRuntime> runtime;  // null in a group of one without mpirun; declared first: it outlives the others
  std::unique_ptr<Communicator> startup;  // patient: ranks read files and load weights minutes apart
  std::unique_ptr<Communicator> control;
  std::unique_ptr<Communicator> data;
  std::string host_name;
  int node_rank = 0;  // rank among those of this host
  int node_size = 1;
};

// Starts MPI where there is mpirun and opens `startup`, so that ranks can already agree on what they read. Collective over
// all ranks; on the engine thread, which makes all later calls. Throws CommError.
ProcessGroup join_process_group();

// Opens `control` and `data`; collective like the above.
void open_communicators(const CommConfig& config, ProcessGroup& group);

}  // namespace skipper

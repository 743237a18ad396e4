// Ranks as processes under MPI, in host memory: the control plane everywhere, the data plane on CPU.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/comm_config.h"
#include "comm/communicator.h"
#include "comm/mpi_runtime.h"

namespace skipper {

// Every operation is nonblocking in MPI and polled until it is done or its deadline has passed; no call can hang.
// all_to_all_v and idle_broadcast are point-to-point messages, none for an empty part and none to oneself: the bytes of the
// parts are the bytes that MPI sends. The deadline of all_to_all_v runs from finish(). After a failure MPI still holds the
// buffers of the operation: the group is broken and the process should end.
//
// abort() ends the whole group, see MpiRuntime::abort. Engine thread only, except abort().
class MpiCommunicator : public Communicator {
 public:
  // Collective over all ranks of the runtime, which must outlive it. `name` ("skipper-data") labels the MPI communicator for
  // tools that watch MPI from outside.
  MpiCommunicator(MpiRuntime& runtime, const CommConfig& config, const std::string& name);
  ~MpiCommunicator() override;

  int rank() const override;
  int size() const override;
  void set_context(const OperationContext& context) override;

  void barrier(Stream& stream) override;
  void broadcast(const Buffer& buffer, int root, Stream& stream) override;
  void idle_broadcast(const Buffer& buffer, int root, std::chrono::milliseconds patience, Stream& stream) override;
  void all_gather(const ConstBuffer& send, const Buffer& recv, Stream& stream) override;
  void all_reduce_sum(std::span<double> values, Stream& stream) override;
  std::unique_ptr<PendingOperation> start_all_to_all_v(const ConstBuffer& send, Counts send_counts, const Buffer& recv,
                                                       Counts recv_counts, Stream& stream) override;
  void abort(const std::string& reason) override;

 private:
  class Group;     // the MPI communicator, and how operations on it are waited for
  class Exchange;  // the messages of one all_to_all_v or idle_broadcast
  class PendingExchange;

  Exchange& next_exchange(const char* operation);

  std::unique_ptr<Group> group_;
  std::vector<std::unique_ptr<Exchange>> exchanges_;  // as many as were ever under way at once; reused
  uint64_t num_exchanges_ = 0;
  std::vector<double> gathered_;
  std::vector<size_t> send_offsets_;
  std::vector<size_t> recv_offsets_;
};

}  // namespace skipper

// Ranks as threads of one process: for tests, and the group of one rank when the server runs without mpirun.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/comm_config.h"
#include "comm/communicator.h"
#include "comm/operation_site.h"
#include "comm/thread_group.h"

namespace skipper {

// Host memory only. Each rank's thread uses its own communicator; abort() may come from any thread.
class ThreadCommunicator : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadGroup> group, int rank, const CommConfig& config);

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }
  void set_context(const OperationContext& context) override { context_ = context; }

  void barrier(Stream& stream) override;
  void broadcast(const Buffer& buffer, int root, Stream& stream) override;
  void idle_broadcast(const Buffer& buffer, int root, std::chrono::milliseconds patience, Stream& stream) override;
  void all_gather(const ConstBuffer& send, const Buffer& recv, Stream& stream) override;
  void all_reduce_sum(std::span<double> values, Stream& stream) override;
  std::unique_ptr<PendingOperation> start_all_to_all_v(const ConstBuffer& send, Counts send_counts, const Buffer& recv,
                                                       Counts recv_counts, Stream& stream) override;
  void abort(const std::string& reason) override { group_->abort(reason); }

 private:
  // Posts this rank's part of the next operation and returns how to wait for it.
  ThreadGroup::Wait post(const char* operation, const ConstBuffer& send, Counts send_counts);
  void copy_from_root(const ThreadGroup::Wait& wait, const Buffer& buffer, int root);

  std::shared_ptr<ThreadGroup> group_;
  const int rank_;
  const CommConfig config_;
  OperationContext context_;
  uint64_t next_sequence_ = 0;
  std::vector<double> sums_;
};

// The communicators of a new group, rank 0 first.
std::vector<std::unique_ptr<Communicator>> make_thread_communicators(int num_ranks, const CommConfig& config);

}  // namespace skipper

// The life of MPI in this process: start, who we are, and an end that does not hang when the group has failed.
#pragma once

#include <atomic>
#include <mutex>
#include <string>

namespace skipper {

// One per process, made on the engine thread (main), which alone calls MPI. Communicators must not outlive it.
//
// How a group ends:
// - Well: every rank destroys its runtime, which calls MPI_Finalize.
// - After abort(), after a collective that failed, or while an exception unwinds the stack: MPI_Finalize would wait for ranks
//   that do not come, so it is left out. The process then ends by its own exit status, which must not be 0: mpirun sees it
//   and ends the other ranks.
class MpiRuntime {
 public:
  // Whether mpirun or srun started this process. Without them MPI would start as a group of one, slowly: do not make a runtime.
  static bool launched();

  // "Open MPI v4.1.4"; needs no runtime.
  static std::string library_version();

  // Throws CommError when MPI does not start.
  MpiRuntime();
  ~MpiRuntime();
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // Rank among those of this host, and their number.
  int node_rank() const { return node_rank_; }
  int node_size() const { return node_size_; }
  const std::string& host_name() const { return host_name_; }

  // Ends the whole group with exit status 1. Returns at once: this rank's current and later operations throw
  // CommError, so that its error line is printed and main returns. A rank that has not ended by itself after half a second logs
  // the reason and is ended by MPI_Abort, and with it the others. Thread-safe; the first reason stays.
  void abort(const std::string& reason);
  bool aborted() const { return aborted_.load(std::memory_order_acquire); }
  std::string abort_reason() const;

  // By a communicator whose operation failed: its requests are abandoned, MPI cannot be ended in order.
  void mark_broken() { broken_ = true; }
  bool broken() const { return broken_ || aborted(); }

 private:
  void find_out_who_we_are();

  int rank_ = 0;
  int size_ = 1;
  int node_rank_ = 0;
  int node_size_ = 1;
  std::string host_name_;
  int exceptions_at_start_ = 0;
  std::atomic<bool> broken_{false};
  std::atomic<bool> aborted_{false};
  mutable std::mutex mutex_;
  std::string abort_reason_;
};

}  // namespace skipper

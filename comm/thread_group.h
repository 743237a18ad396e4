// The meeting point of ranks that are threads of one process: what each rank contributes to each operation, and who took it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/operation_site.h"

namespace skipper {

// Operations are numbered in the order every rank makes them. A rank posts pointers to its bytes, waits until all ranks
// have posted, copies what it needs, and waits until all ranks have copied: then the pointers may die. Several operations
// may be under way at once. Thread-safe.
//
// A failure of one rank aborts the group, and no rank leaves a failed operation while another still copies: buffers stay
// valid for as long as anyone reads them.
class ThreadGroup {
 public:
  struct Contribution {
    const char* operation = nullptr;  // null until posted
    ConstBuffer send;
    std::vector<int64_t> send_counts;  // all_to_all_v only
  };
  using Contributions = std::vector<Contribution>;  // one per rank
  using Copy = std::function<void(const Contributions&)>;

  struct Wait {
    OperationSite site;
    uint64_t sequence = 0;
    std::chrono::milliseconds limit{0};
  };

  explicit ThreadGroup(int size);

  int size() const { return size_; }

  // Throws CommError when the group was aborted or when the ranks do not make the same operation.
  void post(const Wait& wait, Contribution contribution);
  // Waits until `rank` has posted.
  void await_post_of(int rank, const Wait& wait);
  // Waits until all ranks have posted, calls `copy`, and waits until all ranks have copied. A CommError of `copy` aborts the
  // group. Throws CommError when `limit` passes.
  void exchange(const Wait& wait, const Copy& copy);

  // Wakes all ranks; their current and later operations fail with CommError. The first reason stays.
  void abort(const std::string& reason);
  // abort(), and then waits until no rank copies: afterwards the caller's buffers may die.
  void abort_and_settle(const std::string& reason);

 private:
  using Lock = std::unique_lock<std::mutex>;
  struct Operation {
    Contributions contributions;
    int num_posted = 0;
    int num_copied = 0;
  };

  Operation& operation_at(uint64_t sequence);
  bool everyone_copied(uint64_t sequence) const;
  void wait_until(Lock& lock, const Wait& wait, const std::function<bool()>& condition);
  void copy_unlocked(Lock& lock, const Wait& wait, const Copy& copy);
  void record_abort(const std::string& reason);
  void settle(Lock& lock);
  [[noreturn]] void fail(Lock& lock, const std::string& message);

  const int size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Operation> operations_;  // the oldest first; its number is first_sequence_
  uint64_t first_sequence_ = 0;
  int num_copying_ = 0;
  bool aborted_ = false;
  std::string abort_reason_;
};

}  // namespace skipper

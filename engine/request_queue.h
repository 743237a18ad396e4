// The bounded, thread-safe way into the engine.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "engine/generation_request.h"

namespace skipper {

// Any thread pushes; the engine thread takes. `capacity` bounds the requests that wait: those in the queue and those the
// scheduler has taken but not yet started (it reports them with set_num_waiting).
class RequestQueue {
 public:
  explicit RequestQueue(int64_t capacity);

  // Gives the request its id and returns it. Throws ResourceExhausted when full, Cancelled when closed.
  uint64_t push(Submission submission);
  // All submissions so far, in order of arrival; empty when there are none.
  std::vector<Submission> take_all();
  // Sleeps until there is a submission, wake() was called, or `timeout` passed.
  void wait(std::chrono::milliseconds timeout);
  // Ends a wait() that is under way or about to begin.
  void wake();
  // No further push succeeds.
  void close();

  void set_num_waiting(int64_t num_waiting);
  int64_t num_waiting() const;
  bool full() const;

 private:
  int64_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Submission> submissions_;
  int64_t num_taken_waiting_ = 0;
  uint64_t next_id_ = 1;
  bool woken_ = false;
  bool closed_ = false;
};

}  // namespace skipper

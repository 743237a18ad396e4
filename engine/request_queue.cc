#include "engine/request_queue.h"

#include <iterator>
#include <string>

#include "base/error.h"

namespace skipper {

RequestQueue::RequestQueue(int64_t capacity) : capacity_(capacity) {}

uint64_t RequestQueue::push(Submission submission) {
  uint64_t id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) throw Cancelled("the server is shutting down and takes no new requests");
    if (static_cast<int64_t>(submissions_.size()) + num_taken_waiting_ >= capacity_) {
      throw ResourceExhausted("the queue is full (" + std::to_string(capacity_) + " requests are waiting); retry later");
    }
    id = next_id_++;
    submission.request.id = id;
    submissions_.push_back(std::move(submission));
  }
  changed_.notify_one();
  return id;
}

std::vector<Submission> RequestQueue::take_all() {
  const std::lock_guard lock(mutex_);
  std::vector<Submission> taken(std::make_move_iterator(submissions_.begin()), std::make_move_iterator(submissions_.end()));
  submissions_.clear();
  // Until the scheduler reports again, what was taken still waits.
  num_taken_waiting_ += static_cast<int64_t>(taken.size());
  return taken;
}

void RequestQueue::wait(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [this] { return woken_ || !submissions_.empty(); });
  woken_ = false;
}

void RequestQueue::wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_one();
}

void RequestQueue::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void RequestQueue::set_num_waiting(int64_t num_waiting) {
  const std::lock_guard lock(mutex_);
  num_taken_waiting_ = num_waiting;
}

int64_t RequestQueue::num_waiting() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(submissions_.size()) + num_taken_waiting_;
}

bool RequestQueue::full() const { return num_waiting() >= capacity_; }

}  // namespace skipper

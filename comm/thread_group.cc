#include "comm/thread_group.h"

#include <glog/logging.h>

#include <algorithm>
#include <string_view>

#include "base/error.h"

namespace skipper {

namespace {

// Keeps now() + limit within the clock's range when a caller's patience is "for ever".
constexpr std::chrono::hours kLongestWait{24 * 365};

}  // namespace

ThreadGroup::ThreadGroup(int size) : size_(size) { CHECK_GT(size, 0); }

void ThreadGroup::post(const Wait& wait, Contribution contribution) {
  Lock lock(mutex_);
  if (aborted_) fail(lock, abort_message(wait.site, abort_reason_));
  Operation& operation = operation_at(wait.sequence);
  operation.contributions[static_cast<size_t>(wait.site.rank)] = std::move(contribution);
  ++operation.num_posted;
  changed_.notify_all();
}

void ThreadGroup::await_post_of(int rank, const Wait& wait) {
  Lock lock(mutex_);
  const Operation& operation = operation_at(wait.sequence);
  const Contribution& awaited = operation.contributions[static_cast<size_t>(rank)];
  wait_until(lock, wait, [&] { return awaited.operation != nullptr; });
}

void ThreadGroup::exchange(const Wait& wait, const Copy& copy) {
  Lock lock(mutex_);
  Operation& operation = operation_at(wait.sequence);
  wait_until(lock, wait, [&] { return operation.num_posted == size_; });
  copy_unlocked(lock, wait, copy);
  ++operation.num_copied;
  while (!operations_.empty() && operations_.front().num_copied == size_) {
    operations_.pop_front();
    ++first_sequence_;
  }
  changed_.notify_all();
  wait_until(lock, wait, [&] { return everyone_copied(wait.sequence); });
}

// Contributions are not written any more once all are posted, so `copy` may read them without the lock.
void ThreadGroup::copy_unlocked(Lock& lock, const Wait& wait, const Copy& copy) {
  const Contributions& contributions = operation_at(wait.sequence).contributions;
  ++num_copying_;
  lock.unlock();
  std::string failure;
  try {
    for (const Contribution& contribution : contributions) {
      if (std::string_view(contribution.operation) != wait.site.operation) {
        throw CommError(describe(wait.site) + ": another rank called " + contribution.operation + " instead");
      }
    }
    copy(contributions);
  } catch (const CommError& error) {
    failure = error.what();
  }
  lock.lock();
  --num_copying_;
  if (!failure.empty()) fail(lock, failure);
}

void ThreadGroup::abort(const std::string& reason) {
  const Lock lock(mutex_);
  record_abort(reason);
}

void ThreadGroup::abort_and_settle(const std::string& reason) {
  Lock lock(mutex_);
  record_abort(reason);
  settle(lock);
}

ThreadGroup::Operation& ThreadGroup::operation_at(uint64_t sequence) {
  CHECK_GE(sequence, first_sequence_);
  const size_t index = sequence - first_sequence_;
  while (operations_.size() <= index) {
    operations_.emplace_back();
    operations_.back().contributions.resize(static_cast<size_t>(size_));
  }
  return operations_[index];
}

bool ThreadGroup::everyone_copied(uint64_t sequence) const {
  return sequence < first_sequence_ || operations_[sequence - first_sequence_].num_copied == size_;
}

void ThreadGroup::wait_until(Lock& lock, const Wait& wait, const std::function<bool()>& condition) {
  const auto limit = std::min<std::chrono::milliseconds>(wait.limit, kLongestWait);
  const bool in_time = changed_.wait_for(lock, limit, [&] { return aborted_ || condition(); });
  if (aborted_) fail(lock, abort_message(wait.site, abort_reason_));
  if (!in_time) fail(lock, deadline_message(wait.site, {wait.limit}, {}));
}

void ThreadGroup::record_abort(const std::string& reason) {
  if (!aborted_) {
    aborted_ = true;
    abort_reason_ = reason;
  }
  changed_.notify_all();
}

void ThreadGroup::settle(Lock& lock) {
  changed_.wait(lock, [&] { return num_copying_ == 0; });
}

void ThreadGroup::fail(Lock& lock, const std::string& message) {
  record_abort(message);
  settle(lock);
  throw CommError(message);
}

}  // namespace skipper

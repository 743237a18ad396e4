#include "base/thread_pool.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace skipper {
namespace {

// Kernels of a step follow each other within microseconds; longer gaps are idle time, in which the core is left to others.
constexpr std::chrono::microseconds kSpinTime{50};
constexpr int kLooksPerClock = 64;

thread_local bool inside_task = false;

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// True once `condition` holds, false when it did not within the spin time.
template <typename Condition>
bool spin_until(const Condition& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int look = 0; look < kLooksPerClock; ++look) {
      if (condition()) return true;
      pause_briefly();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this] { work(); });
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  ++job_number_;
  job_number_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

ThreadPool& ThreadPool::caller_only() {
  static ThreadPool pool(1);
  return pool;
}

void ThreadPool::run(const Job& job) {
  if (workers_.empty() || inside_task || job.num_tasks <= 1) {
    for (int64_t index = 0; index < job.num_tasks; ++index) job.call(job.task, index);
    return;
  }
  job_ = job;
  next_task_.store(0, std::memory_order_relaxed);
  open_ = true;
  ++job_number_;
  job_number_.notify_all();
  take_tasks();
  // A worker that has not woken up by now finds the door closed; one that is inside is finishing its last task.
  open_ = false;
  const auto all_left = [this] { return num_inside_ == 0; };
  while (!spin_until(all_left)) std::this_thread::yield();
}

void ThreadPool::work() {
  uint32_t seen = 0;
  while (true) {
    wait_for_next_job(seen);
    seen = job_number_;
    if (stopping_) return;
    // Announced before looking at the door, as run() closes it before it counts: one of the two sees the other.
    ++num_inside_;
    if (open_) take_tasks();
    --num_inside_;
  }
}

void ThreadPool::take_tasks() {
  inside_task = true;
  const Job job = job_;
  for (int64_t index = next_task_++; index < job.num_tasks; index = next_task_++) job.call(job.task, index);
  inside_task = false;
}

void ThreadPool::wait_for_next_job(uint32_t seen) {
  if (!spin_until([&] { return job_number_ != seen; })) job_number_.wait(seen);
}

}  // namespace skipper
